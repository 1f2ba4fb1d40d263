"""What a route adds and how it orders, end to end: params, balances, the default route, patterns."""

from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest

from tests.conftest import Start
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Gateway, send

COMPLETION = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder(lambda _: COMPLETION)
    yield recorder
    await recorder.stop()


async def started(start: Start, recorder: Recorder, routes: str) -> Gateway:
    url = await recorder.start()
    return await start(
        f'providers: {{sim: {{like: openai, base_url: "{url}", api_key: env:K}}}}\n{routes}', environ={"K": "k"}
    )


PARAMS = """
routes:
  warm:
    tiers: [sim/m]
    params: {temperature: 0.3, max_tokens: 99, stop: ["x", "é"], logit_bias: {"1": -1}}
"""
ALL = b'"temperature":0.3,"max_tokens":99,"stop":["x","\xc3\xa9"],"logit_bias":{"1":-1}'
WITHOUT_CAP = b'"temperature":0.3,"stop":["x","\xc3\xa9"],"logit_bias":{"1":-1}'


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        (b'{"model":"warm"}', b'{"model":"m",' + ALL + b"}"),
        (b'{ "model" : "warm" }\n', b'{ "model" : "m" ,' + ALL + b"}\n"),
        (b'{"model":"warm","temperature":1.0}', b'{"model":"m","temperature":1.0,' + ALL[18:] + b"}"),
        (b'{"model":"warm","temperature":null}', b'{"model":"m","temperature":null,' + ALL[18:] + b"}"),
        (
            b'{"model":"warm","max_completion_tokens":5}',
            b'{"model":"m","max_completion_tokens":5,' + WITHOUT_CAP + b"}",
        ),
        (b'{"model":"warm","max_output_tokens":null}', b'{"model":"m","max_output_tokens":null,' + WITHOUT_CAP + b"}"),
        (b'{"model":"warm","max_tokens":5}', b'{"model":"m","max_tokens":5,' + WITHOUT_CAP + b"}"),
        (b'{"x":{"temperature":1},"model":"warm"}', b'{"x":{"temperature":1},"model":"m",' + ALL + b"}"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_params_fill_what_the_client_is_silent_about(
    start: Start, recorder: Recorder, path: str, sent: bytes, arrived: bytes
) -> None:
    gateway = await started(start, recorder, PARAMS)
    assert (await send(gateway.port, path, sent)).status == 200
    assert recorder.received[0].body == arrived
    orjson.loads(arrived)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/moderations"])
async def test_params_are_for_chat_and_completions(start: Start, recorder: Recorder, path: str) -> None:
    gateway = await started(start, recorder, PARAMS)
    assert (await send(gateway.port, path, b'{"model":"warm"}')).status == 200
    assert recorder.received[0].body == b'{"model":"m"}'


async def test_params_stand_before_what_asks_for_usage(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, PARAMS)
    await send(gateway.port, CHAT, b'{"model":"warm","stream":true}')
    asked = b',"stream_options":{"include_usage":true}}'
    assert recorder.received[0].body == b'{"model":"m","stream":true,' + ALL + asked


async def test_params_do_not_reach_a_target_named_directly(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, PARAMS)
    await send(gateway.port, CHAT, b'{"model":"sim/m"}')
    assert recorder.received[0].body == b'{"model":"m"}'


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/images/generations", "/moderations"])
async def test_the_json_endpoints_are_relayed(start: Start, recorder: Recorder, path: str) -> None:
    gateway = await started(start, recorder, "routes: {r: {tiers: [sim/m]}}\ndefault_route: r\n")
    body = b'{"n" : 1, "input":"x","model":"r", "size":"1024x1024"}'
    got = await send(gateway.port, path, body)
    assert (got.status, got.headers["x-penstock-model"]) == (200, "m")
    assert recorder.received[0].body == body.replace(b'"r"', b'"m"')
    assert (await send(gateway.port, path, b"{}")).status == 200
    assert recorder.received[1].body == b'{"model":"m"}'


async def test_weighted_targets_share_and_follow_each_other(start: Start, recorder: Recorder) -> None:
    gateway = await started(
        start,
        recorder,
        """
routes:
  shared:
    tiers:
      - targets: [{target: sim/a, weight: 3}, {target: sim/b, weight: 1}]
        balance: weighted
      - sim/last
""",
    )
    gateway.service._surface.runtime.rng.seed(11)  # type: ignore[union-attr] # it has started
    for _ in range(200):
        assert (await send(gateway.port, CHAT, b'{"model":"shared"}')).status == 200
    models = Counter(orjson.loads(one.body)["model"] for one in recorder.received)
    assert set(models) == {"a", "b"}
    assert 0.65 < models["a"] / 200 < 0.85
    recorder.answers = lambda _: answer(503, b"{}")
    recorder.received.clear()
    assert (await send(gateway.port, CHAT, b'{"model":"shared"}')).status == 503
    tried = [orjson.loads(one.body)["model"] for one in recorder.received]
    assert sorted(tried[:2]) == ["a", "b"]
    assert tried[2] == "last"


async def test_the_fastest_target_is_asked_first(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
routes:
  quick:
    tiers: [{{targets: ["sim/delay:120ms", "sim/plain", "sim/status:503"], balance: fastest}}]
"""
    )
    answers = [await gateway.ask("quick") for _ in range(12)]
    assert all(one.status == 200 for one in answers)
    models = [one.headers["x-penstock-model"] for one in answers]
    assert models[0] == "delay:120ms", "none is known, so the file's order holds"
    assert "delay:120ms" not in models[3:]
    assert models[3:] == ["plain"] * 9


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("gpt-4o", "sim/gpt-4o"),
        ("gpt-4o-mini", "sim/m"),
        ("gpt-4-turbo", "sim/fast-gpt-4-turbo"),
        ("claude-x", "sim/claude-x"),
        ("sim/any/thing:free", "sim/any/thing:free"),
        ("", "sim/m"),
    ],
)
async def test_names_that_tools_already_send(start: Start, recorder: Recorder, asked: str, target: str) -> None:
    gateway = await started(
        start,
        recorder,
        """
routes: {simple: {tiers: [sim/m]}}
models: {"gpt-*": sim/*, "gpt-4o-mini": simple, "gpt-*-turbo": sim/fast-*, "claude-*": sim/*}
default_route: simple
""",
    )
    got = await send(gateway.port, CHAT, orjson.dumps({"model": asked}))
    assert (got.status, f"sim/{got.headers['x-penstock-model']}") == (200, target)


async def test_the_cheapest_target_is_asked_first(start: Start, recorder: Recorder) -> None:
    gateway = await started(
        start,
        recorder,
        """
routes:
  frugal:
    tiers:
      - targets:
          - sim/unpriced
          - {target: sim/dear, price: {input: 5, output: 15}}
          - {target: sim/cheap, price: {input: "0.10", output: 0.40}}
        balance: cheapest
""",
    )
    recorder.answers = lambda _: answer(404, b'{"error":{"message":"model not found"}}')
    await send(gateway.port, CHAT, b'{"model":"frugal"}')
    assert [orjson.loads(one.body)["model"] for one in recorder.received] == ["cheap", "dear", "unpriced"]
