"""What the provider gets of a request: the client's bytes but for named spans, and of its headers those on the list."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.golden import oracle
from tests.golden.bench import CREDENTIAL, LOCAL, PATHS, Bench, Seen
from tests.golden.replay import Headers, Received, Scripted

JSON: Final = Scripted([b'{"object":"chat.completion","choices":[]}'], headers=[("Content-Type", "application/json")])
STREAM: Final = Scripted(
    [b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"],
    headers=[("Content-Type", "text/event-stream")],
)
DEFAULT: Final = "\ndefault_route: usual\nroutes:\n  usual: {tiers: [replayed-vllm/usual-7b]}\n"


@dataclass(slots=True)
class Held:
    """One gateway for all examples, in a loop that outlives them."""

    runner: asyncio.Runner
    bench: Bench

    def ask(self, request: bytes, scripted: Scripted, path: str = "/v1/chat/completions") -> Seen:
        return self.runner.run(self.bench.exchange(path, request, scripted))


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bench = runner.run(Bench.start(DEFAULT))
        yield Held(runner, bench)
        runner.run(bench.stop())


# Bodies, written character by character, so that the span of `model` is known before anything looks for it.

TEXTS: Final = st.sampled_from(
    [
        '""',
        '"model"',
        '"\\"model\\":\\"x\\""',
        '"\\\\"',
        '"\\\\\\""',
        '"}"',
        '"{]["',
        '",\\"stream\\":true"',
        '"mod\\u0065l"',
        '"\\u0000\\ud83c\\udf0a"',
        '"\\/"',
        '"é水🌊"',
        '"\u2028\x7f"',
        '"stream_options"',
    ]
)
NUMBERS: Final = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "1.0e+5",
        "1E-7",
        "1.50",
        "123456789012345678901234567890",
        "18446744073709551616",
        "0.1000000000000000055511151231257827",
        "9007199254740993",
    ]
)
SCALARS: Final = TEXTS | NUMBERS | st.sampled_from(["null", "true", "false", "{}", "[]", "[ ]", "{\n}"])
SPACES: Final = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n", "  "])
# Unknown names may stand twice; those that Penstock acts on are drawn apart.
UNKNOWN: Final = st.sampled_from(
    [
        '"temperature"',
        '"é"',
        '""',
        '"Model"',
        '"models"',
        '"model "',
        '"\\"model\\""',
        '"a"',
        '"a"',
        '"messages"',
        '"max_tokens"',
    ]
)
NESTED: Final = UNKNOWN | st.sampled_from(['"model"', '"stream"', '"stream_options"', '"n"', '"mod\\u0065l"'])


class Member(NamedTuple):
    """``before`` ends where the value begins."""

    before: str
    value: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.value + self.after


def members(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[Member]:
    before = st.tuples(SPACES, names, SPACES, SPACES).map(lambda parts: f"{parts[0]}{parts[1]}{parts[2]}:{parts[3]}")
    return st.builds(Member, before, values, SPACES)


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.tuples(SPACES, values, SPACES).map("".join)
    objects = st.lists(members(NESTED, values), max_size=3)
    return st.lists(spaced, max_size=3).map(lambda items: f"[{','.join(items)}]") | objects.map(
        lambda inner: "{" + ",".join(member.text for member in inner) + "}"
    )


VALUES: Final = st.recursive(SCALARS, containers, max_leaves=6)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what must come of it."""

    raw: bytes
    expected: bytes
    streamed: bool


MODEL_NAMES: Final = st.sampled_from(['"model"', '"model"', '"model"', '"mod\\u0065l"', '"\\u006dodel"'])
MODELS: Final = st.sampled_from(["gpt-4o-mini", "a/b:free", "modèle", 'q"uote', "back\\slash", "gpt}", "m" * 60])
ASKED: Final = ["replayed-vllm", "replayed-openai", "replayed-mistral", "replayed-openrouter", "replayed-azure"]
OPTIONS: Final = ["null", "{}", '{"include_usage":true}', '{ "include_usage" : false }', '{"x":[1.0e+5]}']


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    others = draw(st.lists(members(UNKNOWN, VALUES), max_size=5))
    stream = draw(st.sampled_from([None, "true", "true", "true", "false", "null"]))
    options = draw(st.none() | st.none() | st.sampled_from(OPTIONS))
    provider, model = draw(st.sampled_from(ASKED)), draw(MODELS)
    said = draw(st.sampled_from(["named", "named", "named", "named", "null", "empty", "absent"]))
    asked = {
        "named": json.dumps(f"{provider}/{model}", ensure_ascii=draw(st.booleans())),
        "null": "null",
        "empty": '""',
    }
    if said != "named":
        provider, model = "replayed-vllm", "usual-7b"

    acted = []
    if stream is not None:
        acted.append(draw(members(st.just('"stream"'), st.just(stream))))
    if options is not None:
        acted.append(draw(members(st.sampled_from(['"stream_options"', '"stream\\u005foptions"']), st.just(options))))
    own = draw(members(MODEL_NAMES, st.just(asked[said]))) if said != "absent" else None
    parts = draw(st.permutations([*others, *acted, *([own] if own is not None else [])]))
    target = json.dumps(model, ensure_ascii=False)
    inserted = [] if own is not None else [f'"model":{target}']
    if stream == "true" and options is None and provider.removeprefix("replayed-") not in oracle.NOT_ASKED:
        inserted.append('"stream_options":{"include_usage":true}')
    inside = draw(SPACES) if not parts else ""
    head, tail = draw(SPACES) + "{", "}" + draw(SPACES)
    raw = head + ",".join(part.text for part in parts) + inside + tail
    kept = ",".join(part._replace(value=target).text if part is own else part.text for part in parts) + inside
    comma = "," if parts and inserted else ""
    expected = head + kept + comma + ",".join(inserted) + tail
    return Body(raw.encode(), expected.encode(), stream == "true")


def body(raw: str, expected: str) -> Body:
    return Body(raw.encode(), expected.encode(), json.loads(raw).get("stream") is True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(body=bodies())
@example(
    body=body(
        '{"metadata":{"model":"x"},"messages":[{"content":"\\"model\\":\\"y\\""}],"stream":true,"model":"replayed-vllm/z"}',
        '{"metadata":{"model":"x"},"messages":[{"content":"\\"model\\":\\"y\\""}],"stream":true,"model":"z"'
        ',"stream_options":{"include_usage":true}}',
    )
)
@example(body=body("{}", '{"model":"usual-7b"}'))
@example(body=body(' {"model" : null } ', ' {"model" : "usual-7b" } '))
@example(
    body=body('{"stream":true\n}\n', '{"stream":true\n,"model":"usual-7b","stream_options":{"include_usage":true}}\n')
)
@example(body=body('{"a":1,"a":1.0e+5,"model":"replayed-mistral/m","a":-0}', '{"a":1,"a":1.0e+5,"model":"m","a":-0}'))
def test_a_body_is_changed_in_the_named_spans_alone(held: Held, body: Body) -> None:
    seen = held.ask(body.raw, STREAM if body.streamed else JSON)
    assert seen.answer.status == 200, seen.answer.body
    (received,) = seen.received
    assert received.body == body.expected
    assert dict(received.headers)["content-length"] == str(len(body.expected))


def test_a_large_body_arrives_whole(held: Held) -> None:
    """It is written in slices, under one content-length."""
    image = "A" * 3_000_000
    raw = '{"messages":[{"content":"%s"}],"model":"replayed-vllm/%s","seed":1.0e+5}'
    seen = held.ask((raw % (image, "vision")).encode(), JSON)
    (received,) = seen.received
    assert received.body == (raw.replace("replayed-vllm/", "") % (image, "vision")).encode()
    names = [name for name, _ in received.headers]
    assert (names.count("content-length"), names.count("transfer-encoding")) == (1, 0)


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
async def test_a_compressed_body_is_decoded_and_then_changed_like_any_other(
    coding: str, packed: Callable[[bytes], bytes], bench: Bench
) -> None:
    raw = b'{"seed":1.0e+5,"model":"replayed-vllm/m","messages":[{"content":"\xc3\xa9"}]}\n'
    seen = await bench.exchange("/v1/chat/completions", packed(raw), JSON, {"content-encoding": coding})
    (received,) = seen.received
    assert received.body == raw.replace(b"replayed-vllm/", b"")
    assert "content-encoding" not in dict(received.headers)
    assert dict(received.headers)["content-length"] == str(len(received.body))


# Headers.

SENT: Final[Headers] = [
    ("Host", "penstock.example"),
    ("Content-Type", "application/json"),
    ("Accept", "application/json"),
    ("User-Agent", "AsyncOpenAI/Python 3.52.0"),
    ("OpenAI-Beta", "assistants=v2"),
    ("Anthropic-Beta", "prompt-caching-2024-07-31,files-api-2025-04-14"),
    ("anthropic-beta", "interleaved-thinking-2025-05-14"),
    ("Anthropic-Version", "2023-06-01"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("Idempotency-Key", "idem-1"),
    ("HTTP-Referer", "https://penstock.example/app"),
    ("X-Title", "Dam watch"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("Authorization", "Bearer client-secret-1"),
    ("x-api-key", "client-secret-2"),
    ("api-key", "client-secret-3"),
    ("x-goog-api-key", "client-secret-4"),
    ("Cookie", "session=client-secret-5"),
    ("Proxy-Authorization", "Basic client-secret-6"),
    ("OpenAI-Organization", "org-client"),
    ("OpenAI-Project", "proj-client"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "*"),
    ("Referer", "https://penstock.example/inner"),
    ("Origin", "https://penstock.example"),
    ("Sec-Fetch-Mode", "cors"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "203.0.113.7"),
    ("Forwarded", "for=203.0.113.7"),
    ("Via", "1.1 edge"),
    ("CF-Connecting-IP", "203.0.113.7"),
    ("Range", "bytes=0-10"),
    ("If-None-Match", '"x"'),
    ("TE", "trailers"),
    ("Keep-Alive", "timeout=5"),
    ("Connection", "keep-alive, x-secret, x-title"),
    ("X-Secret", "hop-by-hop"),
    ("X-Stainless-Retry-Count", "2"),
    ("x-stainless-lang", "python"),
    ("x-request-id", "client-req-1"),
    ("x-penstock-tags", "a=b"),
    ("Cache-Control", "no-cache"),
    ("tracestate", "vendor=1"),
    ("baggage", "user=alice"),
    ("Priority", "u=1"),
]
PASSED: Final = {
    "accept": "application/json",
    "user-agent": "AsyncOpenAI/Python 3.52.0",
    "openai-beta": "assistants=v2",
    "anthropic-beta": "prompt-caching-2024-07-31,files-api-2025-04-14, interleaved-thinking-2025-05-14",
    "anthropic-version": "2023-06-01",
    "anthropic-dangerous-direct-browser-access": "true",
    "idempotency-key": "idem-1",
    "http-referer": "https://penstock.example/app",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "content-type": "application/json",
    "accept-encoding": "identity",
}
# Where the credential goes, by provider and API; everywhere else it is a Bearer.
NATIVE: Final = {
    ("anthropic", "messages"): "x-api-key",
    ("deepseek", "messages"): "x-api-key",
    ("azure", "chat"): "api-key",
    ("azure", "responses"): "api-key",
    ("azure", "embeddings"): "api-key",
}
CALLS: Final = [
    *((provider, "chat") for provider in ("openai", "anthropic", "mistral", "gemini", "deepseek", "moonshot", "groq")),
    *((provider, "chat") for provider in ("xai", "openrouter", "huggingface", "azure", "together", "ollama", "vllm")),
    *((provider, "responses") for provider in ("openai", "perplexity", "azure", "openrouter")),
    *((provider, "messages") for provider in ("anthropic", "deepseek", "openrouter", "vllm")),
    *((provider, "embeddings") for provider in ("openai", "azure")),
]


async def post_raw(bench: Bench, path: str, request: bytes, headers: Headers) -> Received:
    """One request whose head is sent as it stands here, fields on several lines and all."""
    bench.replay.answer = JSON
    bench.replay.received.clear()
    bench.gateway.log.exchanges.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.gateway.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"POST {path} HTTP/1.1\r\n{lines}Content-Length: {len(request)}\r\n\r\n".encode() + request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], head
    await bench.record()
    writer.close()
    await writer.wait_closed()
    (received,) = bench.replay.received
    return received


def credential_of(provider: str, api: str) -> dict[str, str]:
    if provider in LOCAL:
        return {}
    name = NATIVE.get((provider, api), "authorization")
    return {name: f"Bearer {CREDENTIAL}" if name == "authorization" else CREDENTIAL}


@pytest.mark.parametrize(("provider", "api"), [pytest.param(*call, id="-".join(call)) for call in CALLS])
async def test_headers_pass_by_a_list_and_the_credential_is_penstocks(provider: str, api: str, bench: Bench) -> None:
    request = json.dumps({"model": f"replayed-{provider}/m", "input": "?", "messages": [], "max_tokens": 9}).encode()
    received = await post_raw(bench, f"/v1{PATHS[api]}", request, SENT)
    got = dict(received.headers)
    assert len(got) == len(received.headers), "no field came twice"
    host = bench.replay.origin.removeprefix("http://")
    length = {"host": host, "content-length": str(len(received.body))}
    assert got == {**PASSED, **length, **credential_of(provider, api)}
    assert b"client-secret" not in received.head
    prefix = "/anthropic/v1" if (provider, api) == ("deepseek", "messages") else ""
    assert received.path.endswith(f"{prefix}{PATHS[api]}")


async def test_what_connection_does_not_name_passes(bench: Bench) -> None:
    request = b'{"model":"replayed-openai/m","messages":[]}'
    sent = [pair for pair in SENT if pair[0] != "Connection"]
    got = dict((await post_raw(bench, "/v1/chat/completions", request, sent)).headers)
    assert got.keys() - PASSED.keys() == {"x-title", "host", "content-length", "authorization"}
    assert got["x-title"] == "Dam watch"


async def test_a_client_that_sends_no_headers_gives_none_away(bench: Bench) -> None:
    """Nothing is made up for it but what the call needs: no name of a library, no wish for a coding."""
    request = b'{"model":"replayed-openai/m","messages":[]}'
    received = await post_raw(bench, "/v1/chat/completions", request, [("Host", "x")])
    names = {name for name, _ in received.headers}
    assert names == {"host", "content-length", "content-type", "accept-encoding", "authorization"}


async def test_messages_get_a_version_where_the_client_names_none(bench: Bench) -> None:
    request = b'{"model":"replayed-anthropic/m","max_tokens":1,"messages":[]}'
    received = await post_raw(bench, "/v1/messages", request, [("Host", "x")])
    assert dict(received.headers)["anthropic-version"] == "2023-06-01"


async def test_an_alias_without_the_version_reaches_the_same_path(bench: Bench) -> None:
    request = b'{"model":"replayed-openai/m","messages":[]}'
    received = await post_raw(bench, "/chat/completions?api-version=1", request, [("Host", "x")])
    assert received.path == "/v1/chat/completions"


@pytest.mark.parametrize(
    "header",
    [
        ("traceparent", "00-\xff"),
        ("x-title", "Gr\xfc\xdfe"),
        ("user-agent", "a\tb"),
    ],
)
async def test_a_value_that_no_header_can_carry_is_left_out(header: tuple[str, str], bench: Bench) -> None:
    request = b'{"model":"replayed-openai/m","messages":[]}'
    received = await post_raw(bench, "/v1/chat/completions", request, [("Host", "x"), header])
    assert header[0] not in dict(received.headers)


def test_the_list_of_headers_is_long_enough_to_mean_something() -> None:
    assert len({name.lower() for name, _ in SENT}) >= 40
