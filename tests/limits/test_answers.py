"""What clients are told: headers as at admission, which limit of whom is reached, and when to come again."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from proxy.core.limits import Limits
from proxy.core.principal import ANYBODY
from proxy.phases import identify as identifying
from proxy.phases import lifecycle
from proxy.phases.exchange import Exchange
from proxy.terms import AccountId, VirtualKeyId
from tests.conftest import Start
from tests.gateway import CHAT, Answer, send
from tests.limits.stage import body, config, standings, tokens, until_free
from tests.money.held import USED_IN, USED_OUT, Held
from tests.valkey import Valkey

LIMITED = "x-ratelimit-"


def told(answer: Answer) -> dict[str, str]:
    return {name.removeprefix(LIMITED): value for name, value in answer.headers.items() if name.startswith(LIMITED)}


async def test_headers_as_at_admission(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start(), "{rps: 0.1, burst: 50, tpm: 6000}"))
    request, streamed = body(), body(stream=True)
    answer = await send(gateway.port, CHAT, request)
    assert told(answer) == {
        "limit-requests": "50",
        "remaining-requests": "49",
        "reset-requests": "10s",
        "limit-tokens": "6000",
        "remaining-tokens": str(6000 - tokens(request)),
        "reset-tokens": f"{tokens(request) / 100:g}s",
    }
    await until_free([gateway])
    (standing,) = await standings(gateway)
    assert standing.tokens_used <= (USED_IN + USED_OUT) * 60_000, "settled with what was used"
    assert told(await send(gateway.port, CHAT, streamed))["remaining-requests"] == "48"
    refused = await send(gateway.port, CHAT, body(max_tokens="many" * 1000))
    assert refused.status == 200, "what is no cap is none, and the rest of the minute will do"


async def test_nobody_is_told_of_limits_that_there_are_not(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start(), "{concurrency: 5}"))
    assert told(await send(gateway.port, CHAT, body())) == {}


async def test_a_refusal_says_what_whom_and_when(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start(), "{rps: 0.005, burst: 2}"))
    for _ in range(2):
        assert (await send(gateway.port, CHAT, body())).status == 200
    answer = await send(gateway.port, CHAT, body())
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
    )
    assert answer.error["message"].startswith(
        "account default may send 0.005 requests a second, 2 at once, and has done so. Try again in 3m"
    )
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "200")
    assert told(answer)["remaining-requests"] == "0"
    assert told(answer)["reset-requests"].startswith("6m")
    messages = await send(gateway.port, "/v1/messages", orjson.dumps({"model": "r", "max_tokens": 5, "messages": []}))
    assert (messages.status, messages.json()["type"], messages.error["type"]) == (429, "error", "rate_limit_error")
    bad = await send(gateway.port, CHAT, b"{")
    assert (bad.status, told(bad)) == (400, {}), "what cannot be understood takes nothing"


async def test_what_never_fits_is_not_to_be_sent_again(start: Start, held: Held) -> None:
    gateway = await start(config(await held.start(), "{tpm: 1000}"))
    request = body(max_tokens=2000)
    answer = await send(gateway.port, CHAT, request)
    asked = tokens(request) + 2000 - 100
    assert (answer.status, answer.headers["x-should-retry"], "retry-after" in answer.headers) == (429, "false", False)
    assert answer.error["message"] == (
        f"This request may use {asked} tokens, and account default may use 1000 a minute. "
        "Shorten the prompt or lower the output cap."
    )


async def test_a_request_without_a_cap_takes_what_there_is(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start(), "{tpm: 1000}"))
    request = orjson.dumps({"model": "r", "messages": []})
    answer = await send(gateway.port, CHAT, request)
    assert (answer.status, told(answer)["remaining-tokens"]) == (200, "0")
    await until_free([gateway])
    assert (await send(gateway.port, CHAT, request)).status in (200, 429)
    (standing,) = await standings(gateway)
    assert standing.tokens_used <= 1000 * 60_000


async def test_failed_requests_use_no_tokens(start: Start) -> None:
    gateway = await start(config("http://127.0.0.1:1/v1", "{tpm: 1000, concurrency: 3}", "{tpm: 1000, concurrency: 3}"))
    for _ in range(3):
        assert (await send(gateway.port, CHAT, body())).status == 502
        gateway.forgive()
    await until_free([gateway])
    assert [one.tokens_used for one in await standings(gateway)] == [0, 0]


TWO = """
providers:
  a: {{like: vllm, base_url: "{url}", limits: {{rps: 0.01, burst: 2}}}}
  b: {{like: vllm, base_url: "{url}", limits: {{concurrency: 3}}}}
defaults: {{retry: {{attempts: 1, max: 10ms}}}}
routes: {{r: {{tiers: [a/m, b/m]}}}}
"""


async def test_a_target_whose_provider_is_full_is_skipped(start: Start, held: Held) -> None:
    gateway = await start(TWO.format(url=await held.start()))
    asking = [asyncio.create_task(send(gateway.port, CHAT, body())) for _ in range(5)]
    await held.until_seen(5)
    full = await send(gateway.port, CHAT, body())
    assert (full.status, full.error["code"], full.headers["x-should-retry"]) == (429, "rate_limit_exceeded", "true")
    assert full.headers["retry-after"] == "1"
    assert full.error["message"] == (
        "No target may be asked now; b/m is the first to be free, in 1 s "
        "(its provider's limit is reached: provider b may be sent 3 under way)."
    )
    assert [one["target"] for one in full.error["metadata"]["attempts"]] == ["a/m", "b/m"]
    assert told(full) == {}
    held.go.set()
    answers = await asyncio.gather(*asking)
    assert sorted(one.headers["x-penstock-provider"] for one in answers) == ["a", "a", "b", "b", "b"]
    await until_free([gateway])


KEYS = {
    "own": replace(
        ANYBODY, account=AccountId("acme"), virtual_key=VirtualKeyId("own"), limits=Limits(rps=0.01, burst=1)
    ),
    "first": replace(ANYBODY, account=AccountId("acme"), virtual_key=VirtualKeyId("first")),
    "second": replace(ANYBODY, account=AccountId("acme"), virtual_key=VirtualKeyId("second")),
    "other": replace(ANYBODY, account=AccountId("globex"), virtual_key=VirtualKeyId("other")),
}


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls is said by a header: keys are another part's subject."""

    def identify(x: Exchange, *_: object) -> None:
        x.is_identified = True
        x.principal = KEYS[x.headers["authorization"]]

    monkeypatch.setattr(identifying, "identify", identify)
    monkeypatch.setattr(lifecycle, "identify", identify)


@pytest.mark.usefixtures("_keys")
async def test_keys_and_their_account(start: Start, held: Held) -> None:
    """The account's limits hold for each of its keys and for all of them; a key's own before both; others have the top's."""
    held.go.set()
    accounts = "accounts: {acme: {limits: {rps: 0.01, burst: 3}}}"
    gateway = await start(config(await held.start(), "{rps: 0.01, burst: 2}", more=accounts))

    async def ask(key: str) -> tuple[int, str]:
        answer = await send(gateway.port, CHAT, body(), {"authorization": key})
        return answer.status, answer.error["message"].split(" may")[0] if answer.status != 200 else ""

    assert await ask("own") == (200, "")
    assert await ask("own") == (429, "virtual key own")
    assert await ask("first") == (200, "")
    assert await ask("second") == (200, "")
    assert await ask("first") == (429, "account acme")
    assert [(await ask("other"))[0] for _ in range(3)] == [200, 200, 429]


async def test_an_answer_out_of_the_cache_is_a_request_and_no_tokens(start: Start, held: Held) -> None:
    held.go.set()
    text = config(await held.start(), "{rps: 0.01, burst: 10, tpm: 6000, concurrency: 4}")
    gateway = await start(text.replace("tiers: [p/m]", "tiers: [p/m], cache: {ttl: 1h}"))
    first = await send(gateway.port, CHAT, body())
    await until_free([gateway])
    (after_one,) = await standings(gateway)
    again = await send(gateway.port, CHAT, body())
    assert (first.headers["x-penstock-cache"], again.headers["x-penstock-cache"]) == ("miss", "hit")
    assert told(again)["remaining-requests"] == "8"
    await until_free([gateway])
    (after_two,) = await standings(gateway)
    assert after_two.tokens_used <= after_one.tokens_used


async def test_one_store_call_an_exchange_and_none_without_limits(start: Start, held: Held, valkey: Valkey) -> None:
    """What it takes is one script, and what it gives back another, for all that ended in one turn of the loop."""
    held.go.set()
    url = await held.start()
    limits = "{rps: 100, burst: 50, tpm: 100000, concurrency: 5}"
    gateway = await start(config(url, limits), redis_url=valkey.url)
    unlimited = await start(config(url), redis_url=valkey.url)
    assert (await send(gateway.port, CHAT, body())).status == 200  # the scripts are known by now
    await until_free([gateway])

    def calls() -> int:
        (line,) = [one for one in valkey.command("INFO", "commandstats").splitlines() if "cmdstat_evalsha:" in one]
        return int(line.split("calls=")[1].split(",")[0])

    before = calls()
    assert (await send(unlimited.port, CHAT, body())).status == 200
    assert calls() == before
    assert (await send(gateway.port, CHAT, body())).status == 200
    await asyncio.sleep(0.05)
    assert calls() == before + 2


async def test_what_is_refused_is_counted(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start(), "{rps: 0.01, burst: 1}"))
    assert [(await send(gateway.port, CHAT, body())).status for _ in range(3)] == [200, 429, 429]
    counted = gateway.service.metrics.snapshot()["penstock_limited_total"]
    assert {labels: values[0] for labels, values in counted.items()} == {("requests",): 2}
