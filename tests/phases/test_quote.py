"""What a request may cost at most, for every API, and the cap that is inserted so that it stays within its cost tier.

A token in costs 1,000 nano-USD here, one out 10,000; each two bytes of a body's text count as a token.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolve import parse
from proxy.core import cost
from proxy.core.cost import UnpricedMode, UnpricedPolicy
from proxy.core.failure import Failure, FailureKind
from proxy.core.pricing import RouteRules
from proxy.core.routing import Plan
from proxy.core.splice import read
from proxy.phases.accept import UPLOAD_BYTES_MAX, _choices, _prompts
from proxy.phases.breakers import Breakers
from proxy.phases.exchange import Exchange, Quote
from proxy.phases.quote import IMAGE_TOKENS_MADE_MAX, OUTPUT_CAP_MAX, quote
from proxy.phases.runtime import Runtime
from proxy.phases.upload import Upload
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import DEFAULT_ACCOUNT, Api, ExchangeId, NanoUsd, RouteName
from tests.books import RecordingBooks, budgets, limiter
from tests.doors import open_to_all
from tests.gateway import RecordingLog
from tests.money.stage import IN, OUT, rules
from tests.phases.test_lifecycle import FakeBody, FakeUpstream

DEFAULT, LEAST = cost.OUTPUT_TOKENS_DEFAULT, cost.OUTPUT_TOKENS_MIN
PLAIN = "{input: 1, output: 10}"
ASKED = {"messages": [{"role": "user", "content": "How high is the water, mama?"}]}


class Ask:
    """One request to one target with a price."""

    def __init__(
        self, fields: dict[str, Any] | None, api: Api = Api.CHAT, price: str | None = PLAIN, **route: Any
    ) -> None:
        """``fields`` None: a form. ``route``: of `RouteRules`; ``params`` of the plan."""
        params: tuple[tuple[str, bytes], ...] = route.pop("params", ())
        output_tokens_max: int | None = route.pop("output_tokens_max", None)
        priced = "" if price is None else f", price: {{m: {price}}}"
        table = parse(
            f"""
providers: {{p: {{like: openrouter, base_url: "http://127.0.0.1:1/v1", api_key: env:KEY{priced}}}}}
routes: {{route: {{tiers: [p/m]}}}}
""",
            "routes.yaml",
            {"KEY": "x"},
        )
        log = RecordingLog()
        breakers = Breakers(MemoryBreakers(time.monotonic), log, time.time)
        self.table = rules(table, route=RouteRules(**route))
        world = (self.table, FakeUpstream([], streamed=False), log, time.monotonic, time.time, breakers)
        self.runtime = Runtime(
            *world,
            budgets(log),
            RecordingBooks(),
            SqliteLedger(Path("never opened")),
            MemoryCache(time.monotonic),
            limiter(log),
            open_to_all(log),
        )
        target = self.table.routes[RouteName("route")].targets[0]
        if output_tokens_max is not None:
            terms = self.runtime.terms(DEFAULT_ACCOUNT, RouteName("route"), target)
            made = replace(terms, output_tokens_max=output_tokens_max)
            self.runtime._terms[None, RouteName("route"), target.name] = made
        self.plan = Plan("route", RouteName("route"), (target,), (), self.table.timeouts, params=params)
        self.x = Exchange(ExchangeId("x"), ExchangeId("x"), api, "POST", "/", {}, 0.0, 1_790_000_000_000)
        if fields is None:
            self.x.upload = Upload(FakeBody(), None)
            return
        self.raw = orjson.dumps({"model": "route", **fields})
        self.x.body = read(self.raw)
        self.x.choices = _choices(fields) * (_prompts(fields) if api is Api.COMPLETIONS else 1)

    @property
    def input(self) -> int:
        """What its text costs at most."""
        return -(-len(self.raw) // 2) * IN

    def quoted(self) -> Quote:
        found = self.tried()
        assert isinstance(found, Quote), found
        return found

    def tried(self) -> Quote | Failure:
        return quote(self.x, self.runtime, self.plan, self.plan.targets[0])


# name: API, fields, tokens out that are held
OUTPUTS: dict[str, tuple[Api, dict[str, Any], int]] = {
    "said": (Api.CHAT, {"max_tokens": 100}, 100),
    "said by its new name": (Api.CHAT, {"max_completion_tokens": 70}, 70),
    "said twice": (Api.CHAT, {"max_tokens": 50, "max_completion_tokens": 70}, 70),
    "said by a name of another API": (Api.CHAT, {"max_output_tokens": 60}, 60),
    "silent": (Api.CHAT, {}, DEFAULT),
    "null": (Api.CHAT, {"max_tokens": None}, DEFAULT),
    "null beside a number": (Api.CHAT, {"max_tokens": None, "max_completion_tokens": 30}, 30),
    "text": (Api.CHAT, {"max_tokens": "100"}, DEFAULT),
    "nothing": (Api.CHAT, {"max_tokens": 0}, DEFAULT),
    "less than nothing": (Api.CHAT, {"max_tokens": -100}, DEFAULT),
    "true": (Api.CHAT, {"max_tokens": True}, DEFAULT),
    "a number with a point": (Api.CHAT, {"max_tokens": 100_000.0}, 100_000),
    "beyond all reason": (Api.CHAT, {"max_tokens": 2**63}, OUTPUT_CAP_MAX),
    "n": (Api.CHAT, {"max_tokens": 100, "n": 3}, 300),
    "n, silent": (Api.CHAT, {"n": 3}, 3 * DEFAULT),
    "responses": (Api.RESPONSES, {"input": "?", "max_output_tokens": 100}, 100),
    "responses, silent": (Api.RESPONSES, {"input": "?"}, DEFAULT),
    "messages": (Api.MESSAGES, {"max_tokens": 1000}, 1000),
    "messages, thinking": (
        Api.MESSAGES,
        {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1500}},
        2000,
    ),
    "completions": (Api.COMPLETIONS, {"prompt": "?", "max_tokens": 16}, 16),
    "completions, n": (Api.COMPLETIONS, {"prompt": "?", "max_tokens": 16, "n": 2}, 32),
    "completions, prompts": (Api.COMPLETIONS, {"prompt": ["a", "b", "c"], "max_tokens": 16}, 48),
    "completions, best_of": (Api.COMPLETIONS, {"prompt": "?", "max_tokens": 16, "n": 2, "best_of": 5}, 80),
    "completions, best_of less": (Api.COMPLETIONS, {"prompt": "?", "max_tokens": 16, "n": 3, "best_of": 1}, 48),
    "completions, best_of of each prompt": (
        Api.COMPLETIONS,
        {"prompt": ["a", "b", "c"], "max_tokens": 10, "n": 2, "best_of": 4},
        120,
    ),
    "completions, tokens for a prompt": (Api.COMPLETIONS, {"prompt": [1, 2, 3], "max_tokens": 16}, 16),
    "best_of is of completions alone": (Api.CHAT, {"max_tokens": 10, "best_of": 9}, 10),
    "embeddings": (Api.EMBEDDINGS, {"input": "?"}, 0),
    "moderations": (Api.MODERATIONS, {"input": "?"}, 0),
}


@pytest.mark.parametrize(("api", "fields", "tokens"), OUTPUTS.values(), ids=OUTPUTS)
def test_the_output_that_is_held(api: Api, fields: dict[str, Any], tokens: int) -> None:
    ask = Ask({**ASKED, **fields}, api)
    found = ask.quoted()
    assert found.hold_nanousd == ask.input + tokens * OUT
    assert found.output_cap is None, "where no tier and no maximum asks for it, nothing is inserted"


def test_the_largest_answers_that_were_seen_are_allowed_for() -> None:
    """Of 100 answers 99 stayed within 9,000 tokens."""
    ask = Ask(ASKED)
    for number in range(200):
        ask.runtime.output_sizes.note(ask.plan.targets[0].name, 9000 if number < 50 else 500)
    assert ask.quoted().hold_nanousd == ask.input + 9000 * OUT
    capped = Ask({**ASKED, "max_tokens": 10})
    capped.runtime.output_sizes = ask.runtime.output_sizes
    assert capped.quoted().hold_nanousd == capped.input + 10 * OUT
    null = Ask({**ASKED, "max_tokens": None})
    null.runtime.output_sizes = ask.runtime.output_sizes
    assert null.quoted().hold_nanousd == null.input + 9000 * OUT, "who says null caps nothing"


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({}, 200),
        ({"max_tokens": 50}, 50),
        ({"max_tokens": None}, DEFAULT),
        ({"max_completion_tokens": 70}, 70),
    ],
    ids=str,
)
def test_a_cap_of_the_route_counts_where_the_client_says_nothing(fields: dict[str, Any], held: int) -> None:
    ask = Ask({**ASKED, **fields}, params=(("temperature", b"1"), ("max_tokens", b"200")))
    assert ask.quoted().hold_nanousd == ask.input + held * OUT


def test_a_cap_of_the_route_is_of_chats_and_completions_alone() -> None:
    ask = Ask({"input": "?"}, Api.RESPONSES, params=(("max_tokens", b"200"),))
    assert ask.quoted().hold_nanousd == ask.input + DEFAULT * OUT


# What else is held, by API


def test_a_picture_takes_2000_tokens_and_its_data_none() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    ask = Ask(
        {
            "max_tokens": 10,
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}] * 2}],
        }
    )
    text = -(-(len(ask.raw) - 2 * len(data)) // 2)
    assert ask.quoted().hold_nanousd == (text + 2 * 2000) * IN + 10 * OUT


def test_sound_is_held_at_its_own_rate() -> None:
    data = "A" * 64_000
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    price = "{input: 1, output: 10, audio_input: 40, audio_output: 80}"
    ask = Ask({"max_tokens": 10, "messages": [{"role": "user", "content": [part]}]}, price=price)
    tokens = -(-(len(ask.raw) - len(data)) // 2) + 1000
    assert ask.quoted().hold_nanousd == tokens * 40_000 + 10 * 80_000
    silent = Ask({"max_tokens": 10, **ASKED}, price=price)
    assert silent.quoted().hold_nanousd == silent.input + 10 * OUT


def test_a_cache_of_an_hour_is_held_at_what_it_costs_to_write() -> None:
    price = "{input: 1, output: 10, cache_write: 1.25, cache_write_1h: 2}"
    text = {"type": "text", "text": "hello"}
    kept = {**text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    for part, rate in ((text, 1250), (kept, 2000)):
        ask = Ask({"max_tokens": 10, "messages": [{"role": "user", "content": [part]}]}, Api.MESSAGES, price)
        assert ask.quoted().hold_nanousd == -(-len(ask.raw) // 2) * rate + 10 * OUT


def test_a_large_prompt_is_held_at_the_price_of_large_prompts() -> None:
    price = "{input: 1, output: 10, above: [{input_tokens: 1000, input: 2, output: 30}]}"
    small = Ask({"max_tokens": 10, "messages": [{"role": "user", "content": "a" * 100}]}, price=price)
    large = Ask({"max_tokens": 10, "messages": [{"role": "user", "content": "a" * 4000}]}, price=price)
    assert small.quoted().hold_nanousd == small.input + 10 * OUT
    assert large.quoted().hold_nanousd == 2 * large.input + 10 * 30_000


def test_pictures_to_be_made_are_held_by_their_number() -> None:
    by_fee = Ask({"prompt": "a cat", "n": 3}, Api.IMAGES, "{input: 0, output: 0, image: 0.04}")
    assert by_fee.quoted().hold_nanousd == 3 * 40_000_000
    by_token = Ask({"prompt": "a cat"}, Api.IMAGES, "{input: 5, output: 40}")
    assert by_token.quoted().hold_nanousd == 5 * by_token.input + IMAGE_TOKENS_MADE_MAX * 40_000


def test_a_picture_to_be_edited_comes_in_a_form() -> None:
    ask = Ask(None, Api.IMAGE_EDITS, "{input: 5, output: 40, image_input: 10}")
    assert ask.quoted().hold_nanousd == 2000 * 10_000 + IMAGE_TOKENS_MADE_MAX * 40_000


def test_speech_is_held_by_its_characters() -> None:
    by_character = Ask({"input": "Hällo" * 100}, Api.SPEECH, "{input: 0, output: 0, characters: 15}")
    assert by_character.quoted().hold_nanousd == 500 * 15_000
    by_token = Ask({"input": "a" * 500}, Api.SPEECH, "{input: 1, output: 0, audio_output: 12}")
    assert by_token.quoted().hold_nanousd == by_token.input + 1000 * 12_000


@pytest.mark.parametrize("api", [Api.TRANSCRIPTIONS, Api.TRANSLATIONS])
@pytest.mark.parametrize(("length", "counted"), [("1200000", 1_200_000), (None, UPLOAD_BYTES_MAX)])
def test_sound_in_a_form_is_held_by_its_length(api: Api, length: str | None, counted: int) -> None:
    """Two bytes a millisecond: 1.2 MB are ten minutes at most. An upload that hides its length may be as long as any."""
    ask = Ask(None, api, "{input: 0, output: 0, audio_minute: 0.006}")
    ask.x.headers = {} if length is None else {"content-length": length}
    assert ask.quoted().hold_nanousd == -(-(counted // 2) * 6_000_000 // 60_000)


@pytest.mark.parametrize(("documents", "units"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_a_rerank_is_held_by_its_search_units(documents: int, units: int) -> None:
    fields = {"query": "?", "documents": ["a"] * documents}
    ask = Ask(fields, Api.RERANK, "{input: 0, output: 0, search: 0.002}")
    assert ask.quoted().hold_nanousd == units * 2_000_000


@pytest.mark.parametrize("api", [Api.COUNT_TOKENS, Api.PASSTHROUGH])
def test_what_nobody_bills_holds_nothing(api: Api) -> None:
    assert Ask({"messages": []}, api).quoted().hold_nanousd == 0


# Cost tiers


def tiered(usd_nano: int, fields: dict[str, Any] | None = None, **more: Any) -> Ask:
    return Ask({**ASKED, **(fields or {})}, ceiling_nanousd=NanoUsd(usd_nano), **more)


def refused(ask: Ask) -> FailureKind:
    found = ask.tried()
    assert isinstance(found, Failure), found
    assert found.status == 402
    return found.kind


def test_the_largest_cap_that_fits_is_inserted() -> None:
    ask = tiered(5_000_000)
    fits = (5_000_000 - ask.input) // OUT
    found = ask.quoted()
    assert LEAST < fits < DEFAULT
    assert (found.output_cap, found.hold_nanousd) == (fits, ask.input + fits * OUT)
    assert found.output_tokens_max == fits


def test_never_more_than_4096_are_inserted_unless_the_target_may_give_more() -> None:
    assert tiered(10**12).quoted().output_cap == DEFAULT
    assert tiered(10**12, output_tokens_max=9999).quoted().output_cap == 9999


def test_below_256_the_target_is_skipped() -> None:
    spare = tiered(0).input
    assert tiered(spare + LEAST * OUT).quoted().output_cap == LEAST
    assert refused(tiered(spare + LEAST * OUT - 1)) is FailureKind.COST_TIER_EXCEEDED
    assert refused(tiered(1)) is FailureKind.COST_TIER_EXCEEDED


def test_a_target_that_gives_less_than_256_is_none_the_worse_for_it() -> None:
    assert tiered(10**9, output_tokens_max=100).quoted().output_cap == 100
    few = tiered(0).input + 99 * OUT
    assert refused(tiered(few, output_tokens_max=100)) is FailureKind.COST_TIER_EXCEEDED


def test_without_a_tier_the_targets_maximum_is_inserted() -> None:
    ask = Ask(ASKED, output_tokens_max=700)
    assert (ask.quoted().output_cap, ask.quoted().hold_nanousd) == (700, ask.input + 700 * OUT)


@pytest.mark.parametrize("fields", [{"max_tokens": 300}, {"max_completion_tokens": 300}, {"max_output_tokens": 300}])
def test_what_the_client_says_is_left_alone_and_must_fit(fields: dict[str, Any]) -> None:
    fits = tiered(0, fields).input + 300 * OUT
    assert tiered(fits, fields).quoted().output_cap is None
    assert refused(tiered(fits - 1, fields)) is FailureKind.COST_TIER_EXCEEDED


def test_null_is_said() -> None:
    assert refused(tiered(5_000_000, {"max_tokens": None})) is FailureKind.COST_TIER_EXCEEDED
    assert tiered(10**9, {"max_tokens": None}).quoted().output_cap is None


def test_a_cap_of_the_route_is_said() -> None:
    assert tiered(10**9, params=(("max_tokens", b"300"),)).quoted().output_cap is None


def test_the_lower_of_two_tiers_counts() -> None:
    for route, client in ((5_000_000, 9_000_000), (9_000_000, 5_000_000)):
        ask = tiered(route)
        ask.x.cost_tier = "own", NanoUsd(client)
        assert ask.quoted().output_cap == (5_000_000 - ask.input) // OUT
    ask = Ask(ASKED)
    ask.x.cost_tier = "own", NanoUsd(5_000_000)
    assert ask.quoted().output_cap == (5_000_000 - ask.input) // OUT


@pytest.mark.parametrize(
    ("fields", "made"),
    [({"n": 2}, 2), ({"n": 2, "best_of": 3}, 3), ({"best_of": 3, "prompt": ["a", "b"]}, 6), ({"prompt": ["a"] * 3}, 3)],
    ids=str,
)
def test_a_cap_is_of_each_that_is_generated(fields: dict[str, Any], made: int) -> None:
    ask = Ask({"prompt": "?", **fields}, Api.COMPLETIONS, ceiling_nanousd=NanoUsd(50_000_000))
    found = ask.quoted()
    assert found.output_cap == (50_000_000 - ask.input) // (made * OUT)
    assert found.hold_nanousd == ask.input + found.output_cap * made * OUT


def test_an_api_without_output_must_fit_as_it_is() -> None:
    ask = Ask({"input": "?" * 1000}, Api.EMBEDDINGS, ceiling_nanousd=NanoUsd(10**6))
    assert (ask.quoted().output_cap, ask.quoted().hold_nanousd) == (None, ask.input)
    dear = Ask({"input": "?" * 3000}, Api.EMBEDDINGS, ceiling_nanousd=NanoUsd(10**6))
    assert refused(dear) is FailureKind.COST_TIER_EXCEEDED


# Without a price


def test_without_a_price_a_ceiling_is_held() -> None:
    assert Ask(ASKED, price=None).quoted().hold_nanousd == 10_000_000
    own = UnpricedPolicy(UnpricedMode.RESERVE, NanoUsd(777))
    assert Ask(ASKED, price=None, unpriced=own).quoted().hold_nanousd == 777


def test_without_a_price_no_more_is_held_than_the_request_may_cost() -> None:
    found = tiered(3_000_000, price=None).quoted()
    assert (found.hold_nanousd, found.terms.unpriced.ceiling_nanousd) == (3_000_000, 3_000_000)


def test_without_a_price_a_route_may_take_no_target() -> None:
    assert refused(Ask(ASKED, price=None, unpriced=UnpricedPolicy(UnpricedMode.REJECT))) is FailureKind.MODEL_UNPRICED


def test_without_a_price_a_route_may_count_nothing() -> None:
    found = Ask(ASKED, price=None, unpriced=UnpricedPolicy(UnpricedMode.FREE)).quoted()
    assert (found.hold_nanousd, found.terms.unpriced.mode) == (0, UnpricedMode.FREE)


def test_a_moderation_without_a_price_is_free_whatever_the_route_says() -> None:
    ask = Ask({"input": "?"}, Api.MODERATIONS, None, unpriced=UnpricedPolicy(UnpricedMode.REJECT))
    assert ask.quoted().hold_nanousd == 0
