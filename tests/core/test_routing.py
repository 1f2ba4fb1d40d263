"""What a requested name becomes: rows for every way to ask, and the texts of every way to fail."""

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.credential import Credential
from proxy.core.failure import Failure, FailureKind
from proxy.core.nearest import did_you_mean, nearest
from proxy.core.routing import (
    PLANNED_MAX,
    AuthStyle,
    Plan,
    Provider,
    Route,
    RoutingTable,
    Target,
    Tier,
    Timeouts,
    considered,
    listing,
    plan,
)
from proxy.terms import Api, ProviderId, RouteName


def provider(name: str, *apis: Api, inactive: str | None = None, retired: dict[Api, str] | None = None) -> Provider:
    base = f"https://{name}.example/v1"
    return Provider(
        id=ProviderId(name),
        base_url=base,
        urls={api: f"{base}/{api.value}" for api in apis},
        models_url=None,
        auth=dict.fromkeys(apis, AuthStyle.BEARER),
        credentials=(Credential("secret"),),
        inactive=inactive,
        retired_apis=retired or {},
    )


OPENAI = provider("openai", Api.CHAT, Api.RESPONSES, Api.EMBEDDINGS)
ANTHROPIC = provider("anthropic", Api.CHAT, Api.MESSAGES)
GROQ = provider("groq", Api.CHAT, inactive="GROQ_API_KEY is not set")
VLLM = provider("vllm", Api.CHAT, Api.MESSAGES, inactive="nothing answers at http://localhost:8000/v1")
PERPLEXITY = provider("perplexity", Api.RESPONSES, retired={Api.CHAT: "retired 2026-09-27: use responses"})
DEMO = provider("demo", *Api)

FAST = Timeouts(total_s=9.0)
USUAL = Timeouts()


def route(name: str, *targets: str, enabled: bool = True) -> Route:
    known = {one.id: one for one in (OPENAI, ANTHROPIC, GROQ, VLLM, PERPLEXITY)}
    tiers = tuple(
        Tier((Target(known[ProviderId(head)], model),))
        for head, _, model in (target.partition("/") for target in targets)
    )
    return Route(RouteName(name), tiers, FAST, enabled=enabled)


ROUTES = [
    route("voice", "openai/small", "groq/fast", "anthropic/haiku"),
    route("lonely", "groq/fast", "vllm/own"),
    route("mixed", "openai/small", "vllm/own"),
    route("web", "perplexity/sonar", "openai/small"),
    route("off", "openai/small", enabled=False),
]
MODELS = {
    "gpt-4o-mini": "voice",
    "gpt-*": "openai/*",
    "gpt-5*": "anthropic/*",
    "*-turbo": "openai/*",
    "ft:*:acme": "groq/*",
    "pinned": "openai/gpt-4o-2024",
    "echo": "openai/x-*",
    "idle": "groq/llama",
    "sleeping": "lonely",
}

TABLE = RoutingTable(
    providers={one.id: one for one in (OPENAI, ANTHROPIC, GROQ, VLLM, PERPLEXITY)},
    routes={one.name: one for one in ROUTES},
    models=MODELS,
    default_route=RouteName("voice"),
    timeouts=USUAL,
)
DEMO_TABLE = replace(
    TABLE,
    providers={**TABLE.providers, DEMO.id: DEMO},
    routes={
        one.name: replace(one, tiers=(*one.tiers, Tier((Target(DEMO, one.targets[0].model),))))
        for one in (*ROUTES, Route(RouteName("demo"), (), USUAL))
        if one.tiers
    },
    demo=DEMO,
)


class Ask(NamedTuple):
    table: RoutingTable
    name: str | None
    api: Api
    only: str | None

    def plan(self) -> Plan | Failure:
        return plan(self.table, self.name, self.api, only=self.only)


# The question; then the route and the targets that come of it.
PLANS: list[tuple[Ask, str | None, str]] = [
    (Ask(TABLE, "voice", Api.CHAT, None), "voice", "openai/small anthropic/haiku"),
    (Ask(TABLE, "voice", Api.RESPONSES, None), "voice", "openai/small"),
    (Ask(TABLE, "voice", Api.MESSAGES, None), "voice", "anthropic/haiku"),
    (Ask(TABLE, "voice", Api.CHAT, "anthropic"), "voice", "anthropic/haiku"),
    (Ask(TABLE, "web", Api.CHAT, None), "web", "openai/small"),
    (Ask(TABLE, "web", Api.RESPONSES, None), "web", "perplexity/sonar openai/small"),
    (Ask(TABLE, None, Api.CHAT, None), "voice", "openai/small anthropic/haiku"),
    (Ask(TABLE, "", Api.CHAT, None), "voice", "openai/small anthropic/haiku"),
    (Ask(TABLE, "gpt-4o-mini", Api.CHAT, None), "voice", "openai/small anthropic/haiku"),
    (Ask(TABLE, "gpt-4o", Api.CHAT, None), None, "openai/gpt-4o"),
    (Ask(TABLE, "gpt-", Api.CHAT, None), None, "openai/gpt-"),
    (Ask(TABLE, "gpt-5.1", Api.CHAT, None), None, "anthropic/gpt-5.1"),
    (Ask(TABLE, "qwen-turbo", Api.CHAT, None), None, "openai/qwen-turbo"),
    (Ask(TABLE, "gpt-5-turbo", Api.CHAT, None), None, "openai/gpt-5-turbo"),
    (Ask(TABLE, "pinned", Api.CHAT, None), None, "openai/gpt-4o-2024"),
    (Ask(TABLE, "echo", Api.CHAT, None), None, "openai/x-echo"),
    (Ask(TABLE, "openai/any/thing:free", Api.CHAT, None), None, "openai/any/thing:free"),
    (Ask(TABLE, "openai/gpt-4o", Api.CHAT, "openai"), None, "openai/gpt-4o"),
    (Ask(DEMO_TABLE, "voice", Api.CHAT, None), "voice", "openai/small anthropic/haiku demo/small"),
    (Ask(DEMO_TABLE, "lonely", Api.EMBEDDINGS, None), "lonely", "demo/fast"),
    (Ask(DEMO_TABLE, "anything at all", Api.CHAT, None), None, "demo/anything at all"),
    (Ask(DEMO_TABLE, "acme/model", Api.CHAT, None), None, "demo/acme/model"),
    (Ask(DEMO_TABLE, "groq/llama", Api.CHAT, None), None, "demo/llama"),
    (Ask(DEMO_TABLE, "idle", Api.CHAT, None), None, "demo/llama"),
    (Ask(DEMO_TABLE, "openai/gpt-4o", Api.CHAT, None), None, "openai/gpt-4o"),
    (Ask(DEMO_TABLE, "anything", Api.CHAT, "demo"), None, "demo/anything"),
    (Ask(DEMO_TABLE, "voice", Api.CHAT, "demo"), "voice", "demo/small"),
]


@pytest.mark.parametrize(("ask", "route_name", "targets"), PLANS)
def test_a_name_becomes_targets(ask: Ask, route_name: str | None, targets: str) -> None:
    planned = ask.plan()
    assert isinstance(planned, Plan)
    assert planned.route == route_name
    assert " ".join(target.name for target in planned.targets) == targets
    assert planned.asked == (ask.name or "voice")
    assert planned.timeouts == (FAST if route_name else USUAL)
    assert ask.plan() == planned


def test_what_is_skipped_says_why() -> None:
    planned = plan(TABLE, "voice", Api.MESSAGES)
    assert isinstance(planned, Plan)
    assert [(one.target, one.reason) for one in planned.skipped] == [
        ("openai/small", "does not speak the messages API"),
        ("groq/fast", "GROQ_API_KEY is not set"),
    ]
    planned = plan(TABLE, "voice", Api.CHAT, only="openai")
    assert isinstance(planned, Plan)
    assert {one.reason for one in planned.skipped} == {"x-penstock-provider allows only openai"}
    planned = plan(TABLE, "web", Api.CHAT)
    assert isinstance(planned, Plan)
    assert planned.skipped[0].reason == "does not speak the chat API: retired 2026-09-27: use responses"


K = FailureKind
FAILURES: list[tuple[Ask, FailureKind, str]] = [
    (
        Ask(TABLE, "vioce", Api.CHAT, None), K.MODEL_UNKNOWN,
        ("model 'vioce' is not a route, a configured name or <provider>/<model>. Did you mean 'voice'?"
        " GET /v1/models lists what there is"),
    ),
    (
        Ask(TABLE, "zzzzzz", Api.CHAT, None), K.MODEL_UNKNOWN,
        "model 'zzzzzz' is not a route, a configured name or <provider>/<model>. GET /v1/models lists what there is",
    ),
    (
        Ask(TABLE, "opnai/small", Api.CHAT, None), K.MODEL_UNKNOWN,
        ("model 'opnai/small' is not a route, a configured name or <provider>/<model>. Did you mean 'openai/small'?"
        " GET /v1/models lists what there is"),
    ),
    (
        Ask(TABLE, "openai/", Api.CHAT, None), K.MODEL_UNKNOWN,
        ("model 'openai/' is not a route, a configured name or <provider>/<model>."
        " Did you mean 'openai/small' or 'openai/x-echo'? GET /v1/models lists what there is"),
    ),
    (
        Ask(replace(TABLE, default_route=None), None, Api.CHAT, None), K.MODEL_UNKNOWN,
        ("the request names no model and no default_route is configured. Send one of voice, lonely, mixed, web,"
        " gpt-4o-mini, pinned, echo, idle and 9 more"),
    ),
    (
        Ask(TABLE, "lonely", Api.CHAT, None), K.PROVIDER_INACTIVE,
        ("no provider of route 'lonely' is active (groq: GROQ_API_KEY is not set;"
        " vllm: nothing answers at http://localhost:8000/v1). Make one of them active and restart Penstock"),
    ),
    (
        Ask(TABLE, "sleeping", Api.MESSAGES, None), K.PROVIDER_INACTIVE,
        ("no provider of route 'lonely' is active (vllm: nothing answers at http://localhost:8000/v1)."
        " Make one of them active and restart Penstock"),
    ),
    (
        Ask(TABLE, "groq/llama", Api.CHAT, None), K.PROVIDER_INACTIVE,
        ("no provider of 'groq/llama' is active (groq: GROQ_API_KEY is not set)."
        " Make one of them active and restart Penstock"),
    ),
    (
        Ask(TABLE, "voice", Api.CHAT, "groq"), K.PROVIDER_INACTIVE,
        ("no provider of route 'voice' is active (groq: GROQ_API_KEY is not set)."
        " Make one of them active and restart Penstock"),
    ),
    (
        Ask(TABLE, "mixed", Api.MESSAGES, None), K.UNSUPPORTED_API,
        ("no target of route 'mixed' speaks the messages API (openai speaks chat, responses, embeddings;"
        " vllm speaks chat, messages). What does: voice, anthropic/haiku, gpt-4o-mini"),
    ),
    (
        Ask(TABLE, "lonely", Api.EMBEDDINGS, None), K.UNSUPPORTED_API,
        ("no target of route 'lonely' speaks the embeddings API (groq speaks chat; vllm speaks chat, messages)."
        " What does: voice, mixed, web, openai/small, openai/gpt-4o-2024, openai/x-echo, gpt-4o-mini, pinned and 1 more"),
    ),
    (
        Ask(TABLE, "perplexity/sonar", Api.CHAT, None), K.UNSUPPORTED_API,
        ("no target of 'perplexity/sonar' speaks the chat API"
        " (perplexity speaks responses; chat retired 2026-09-27: use responses)."
        " What does: voice, mixed, web, openai/small, anthropic/haiku, openai/gpt-4o-2024, openai/x-echo, gpt-4o-mini"
        " and 2 more"),
    ),
    (
        Ask(TABLE, "voice", Api.COMPLETIONS, None), K.UNSUPPORTED_API,
        ("no target of route 'voice' speaks the completions API (openai speaks chat, responses, embeddings;"
        " groq speaks chat; anthropic speaks chat, messages). No active target does"),
    ),
    (Ask(TABLE, "off", Api.CHAT, None), K.NO_TARGET, "route 'off' is switched off (enabled: false)"),
    (
        Ask(TABLE, "voice", Api.CHAT, "opnai"), K.BAD_REQUEST,
        "x-penstock-provider names 'opnai', which is not a provider here. Did you mean 'openai'?",
    ),
    (
        Ask(TABLE, "voice", Api.CHAT, "vllm"), K.BAD_REQUEST,
        "route 'voice' has no target at 'vllm', which x-penstock-provider asks for, but at anthropic, groq, openai",
    ),
    (
        Ask(DEMO_TABLE, "groq/llama", Api.CHAT, "groq"), K.PROVIDER_INACTIVE,
        ("no provider of 'groq/llama' is active (groq: GROQ_API_KEY is not set)."
        " Make one of them active and restart Penstock"),
    ),
    (
        Ask(DEMO_TABLE, "zzzzzz", Api.CHAT, "openai"), K.MODEL_UNKNOWN,
        "model 'zzzzzz' is not a route, a configured name or <provider>/<model>. GET /v1/models lists what there is",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "kind", "message"), FAILURES)
def test_a_name_that_cannot_be_served_says_what_to_do(ask: Ask, kind: FailureKind, message: str) -> None:
    failure = ask.plan()
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (kind, message)


@pytest.mark.parametrize(
    "asked", ["openai/" + "a" * 600, "openai/a\nb", "openai/a\x00", "openai/\x1b[31m", "\u202egpt"]
)
@pytest.mark.parametrize("table", [TABLE, DEMO_TABLE], ids=["", "demo"])
def test_a_name_that_no_header_or_log_should_carry_is_no_name(table: RoutingTable, asked: str) -> None:
    failure = plan(table, asked, Api.CHAT)
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.MODEL_UNKNOWN
    assert failure.message.isprintable()
    assert len(failure.message) < 400


@given(st.text(max_size=80), st.sampled_from(Api), st.none() | st.text(max_size=10))
def test_any_name_makes_a_plan_or_a_failure(asked: str, api: Api, only: str | None) -> None:
    for table in (TABLE, DEMO_TABLE):
        planned = plan(table, asked, api, only=only)
        if isinstance(planned, Plan):
            assert all(api in one.provider.urls and one.provider.inactive is None for one in planned.targets)
        assert plan(table, asked, api, only=only) == planned


def test_what_is_remembered_is_bounded() -> None:
    table = replace(TABLE)
    for number in range(PLANNED_MAX + 100):
        plan(table, f"openai/{number}", Api.CHAT)
        plan(table, f"nobody-{number % 9}", Api.CHAT)
    assert len(table.planned) <= PLANNED_MAX
    assert not any(name.startswith("nobody") for name, _ in table.planned)
    for api in Api:
        for name in (*TABLE.routes, *TABLE.models, None):
            plan(table, name, api)
            plan(table, name, api, only="openai")
    assert len(table.planned) <= PLANNED_MAX + (len(TABLE.routes) + len(TABLE.models)) * len(Api)
    assert plan(table, "voice", Api.CHAT) is plan(table, None, Api.CHAT)


def test_a_changed_table_remembers_nothing_of_the_old_one() -> None:
    old = replace(TABLE)
    plan(old, "voice", Api.CHAT)
    assert not replace(old, default_route=None).planned


def test_considered_keeps_the_order_of_the_route() -> None:
    assert [(target.name, reason) for target, reason in considered(TABLE, "voice", Api.CHAT)] == [
        ("openai/small", None),
        ("groq/fast", "GROQ_API_KEY is not set"),
        ("anthropic/haiku", None),
    ]
    assert considered(TABLE, "zzzzzz", Api.CHAT) == []


def test_listing_shows_routes_then_targets_then_names_that_can_serve() -> None:
    assert listing(TABLE) == [
        ("voice", "penstock"),
        ("mixed", "penstock"),
        ("web", "penstock"),
        ("openai/small", "openai"),
        ("anthropic/haiku", "anthropic"),
        ("perplexity/sonar", "perplexity"),
        ("openai/gpt-4o-2024", "openai"),
        ("openai/x-echo", "openai"),
        ("gpt-4o-mini", "penstock"),
        ("pinned", "openai"),
        ("echo", "openai"),
    ]


def test_listing_in_demo_mode_shows_what_the_simulator_serves() -> None:
    ids = [name for name, _ in listing(DEMO_TABLE)]
    assert {"lonely", "sleeping", "idle", "demo/fast"} <= set(ids)
    assert "off" not in ids
    assert len(ids) == len(set(ids))


def test_every_listed_name_can_be_asked_for() -> None:
    for table in (TABLE, DEMO_TABLE):
        for name, _ in listing(table):
            assert any(isinstance(plan(table, name, api), Plan) for api in Api), name


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("opnai", ["openai", "groq"], ("openai",)),
        ("OPENAI", ["openai"], ("openai",)),
        ("zzz", ["openai"], ()),
        ("x", [], ()),
        ("a" * 100_000, ["a" * 64 + "b"], ("a" * 64 + "b",)),
    ],
)
def test_nearest(name: str, known: list[str], expected: tuple[str, ...]) -> None:
    assert nearest(name, known) == expected


def test_did_you_mean_is_a_sentence_or_nothing() -> None:
    assert did_you_mean("vioce", ["voice", "vice"], most=2) in {
        " Did you mean 'voice' or 'vice'?",
        " Did you mean 'vice' or 'voice'?",
    }
    assert did_you_mean("zzz", ["voice"]) == ""
