"""The cache's key against a slow reference, over documents that Hypothesis writes in every spelling that JSON has."""

import json
import random
from typing import Any, Final

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.cache_key import NOT_ASKED, VERSION, KeyParts, Uncacheable, _repeats_exactly, digest, variants
from proxy.core.splice import DEPTH_MAX, Body, BodyError, read
from proxy.terms import AccountId, Api, RouteName

ACME: Final = AccountId("acme")
ROUTE: Final = RouteName("simple")
JSON_APIS: Final = tuple(api for api in Api if api is not Api.PASSTHROUGH)

# Written out once more, so that a row that goes missing or is added is seen.
IGNORED: Final[dict[Api, set[str]]] = {
    **{api: {"model", "user"} for api in JSON_APIS},
    Api.CHAT: {
        "model",
        "stream",
        "user",
        "safety_identifier",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "store",
    },
    Api.COMPLETIONS: {"model", "stream", "user"},
    Api.RESPONSES: {"model", "stream"},
    Api.MESSAGES: {"model", "stream", "user", "metadata"},
}
FORMS: Final = (Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES)
# Every field of openai-python 3.52's chat, completions and Responses requests and of the Messages API that decides.
FIELDS: Final = [
    "audio",
    "best_of",
    "cache_control",
    "echo",
    "frequency_penalty",
    "function_call",
    "functions",
    "include",
    "input",
    "instructions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tool_calls",
    "messages",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt",
    "query",
    "documents",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "stop_sequences",
    "suffix",
    "system",
    "temperature",
    "text",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "verbosity",
    "web_search_options",
    "encoding_format",
    "dimensions",
    "voice",
    "speed",
    "size",
    "quality",
    "top_n",
    "never_heard_of",
]


def key_of(raw: bytes, api: Api = Api.CHAT, **more: Any) -> KeyParts | Uncacheable:
    return digest(more.pop("account", ACME), more.pop("route", ROUTE), api, read(raw), **more)


def key(fields: dict[str, Any], api: Api = Api.CHAT, **more: Any) -> KeyParts:
    found = key_of(json.dumps(fields).encode(), api, **more)
    assert isinstance(found, KeyParts), found
    return found


# Documents, and every spelling of them.

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/{}:,\u2028'), max_size=8)
NUMBERS = (
    st.integers(-(2**63), 2**64 - 1) | st.floats(-1e15, 1e15, allow_nan=False) | st.sampled_from([0, 1, 1.0, -0.0])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
NAMES = TEXTS | st.sampled_from(["model", "stream", "user", "metadata", "content", "role"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
DECIDING = st.sampled_from(FIELDS)
BODIES = st.dictionaries(
    DECIDING | st.sampled_from(sorted(NOT_ASKED)) | NAMES,
    VALUES,
    max_size=5,
).map(lambda fields: {**fields, "model": "m", "stream": True, "store": False})


def spelled(value: Any, rng: random.Random) -> str:
    """One of the spellings of a document."""
    space = "".join(rng.choices(" \n\t\r", k=rng.choice((0, 0, 1))))
    match value:
        case dict():
            members = list(value.items())
            rng.shuffle(members)
            inside = ",".join(f"{space}{spelled(name, rng)}:{spelled(item, rng)}" for name, item in members)
            return f"{space}{{{inside}{space}}}"
        case list():
            return f"{space}[{','.join(spelled(item, rng) for item in value)}]{space}"
        case str():
            return f'{space}"{"".join(_character(character, rng) for character in value)}"'
        case _:
            return space + json.dumps(value)


def _character(character: str, rng: random.Random) -> str:
    if rng.random() < 0.3 or character < " ":
        pair = character.encode("utf-16-be")
        return "".join(f"\\u{pair[at : at + 2].hex()}" for at in range(0, len(pair), 2))
    return "\\" + character if character in '"\\' else character


def reference(fields: dict[str, Any], api: Api) -> str:
    """What of a request decides, written down slowly: repr tells 1 from 1.0 and True from 1, which Python's == does not."""
    kept = {}
    for name, value in fields.items():
        if name in IGNORED[api]:
            continue
        if name == "stream_options" and api in FORMS and isinstance(value, dict):
            value = {option: on for option, on in value.items() if not option.startswith("include_")}  # noqa: PLW2901
            if not value:
                continue
        question = name in ("messages", "input", "prompt", "system", "instructions", "query", "documents")
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53 and not question
        kept[name] = _sorted(int(value) if whole else value)
    return repr(_sorted(kept))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(BODIES, st.sampled_from(JSON_APIS), st.randoms(use_true_random=False))
def test_spelling_does_not_matter(fields: dict[str, Any], api: Api, rng: random.Random) -> None:
    one, other = key_of(spelled(fields, rng).encode(), api), key_of(spelled(fields, rng).encode(), api)
    assert isinstance(one, KeyParts)
    assert one == other == key(fields, api)


@given(BODIES, DECIDING | NAMES | st.just("stream_options"), VALUES, st.sampled_from(JSON_APIS))
@example({"temperature": 1}, "temperature", 1.0, Api.CHAT)
@example({"tools": [{"default": 1}]}, "tools", [{"default": 1.0}], Api.CHAT)
@example({"temperature": 0}, "temperature", -0.0, Api.CHAT)
@example({"logprobs": True}, "logprobs", 1, Api.CHAT)
@example({"seed": None}, "n", None, Api.CHAT)
@example({"stream_options": {"include_usage": True, "more": 1}}, "stream_options", {"more": 1}, Api.RESPONSES)
@example({"stream_options": {"include_usage": True}}, "stream_options", {}, Api.EMBEDDINGS)
def test_the_key_tells_what_the_reference_tells(fields: dict[str, Any], name: str, value: Any, api: Api) -> None:
    if name == "store":  # held by the tests of what is refused
        value = False
    other = {**fields, name: value}
    same = reference(fields, api) == reference(other, api)
    assert (key(fields, api) == key(other, api)) is same
    assert (key(fields, api).text == key(other, api).text) is same


@pytest.mark.parametrize("api", JSON_APIS)
@pytest.mark.parametrize("name", FIELDS)
def test_what_decides_changes_the_key(name: str, api: Api) -> None:
    keys = {key({"model": "m"}, api).text, *(key({"model": "m", name: value}, api).text for value in (None, 1, 2, "1"))}
    assert len(keys) == 5


@pytest.mark.parametrize("api", JSON_APIS)
def test_what_does_not_decide_does_not(api: Api) -> None:
    for name in set(NOT_ASKED) | {"model", "user"}:
        same = key({"input": "?"}, api) == key({"input": "?", name: False}, api)
        assert same is (name in IGNORED[api]), name
        assert (name in NOT_ASKED and api in NOT_ASKED[name].apis) is (name in IGNORED[api]), name
    assert all(row.reason for row in NOT_ASKED.values())


def test_the_parts_of_the_key() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "?"}], "temperature": 0}
    first = key(asked)
    other_question = key({**asked, "messages": []})
    assert (other_question.scope, other_question.settings) == (first.scope, first.settings)
    assert other_question.question != first.question
    hotter = key({**asked, "temperature": 1})
    assert (hotter.scope, hotter.question) == (first.scope, first.question)
    assert hotter.settings != first.settings
    assert [len(part) for part in first] == [32, 32, 32]
    version, _, digits = first.text.partition(".")
    assert (version, len(digits)) == (str(VERSION), 64)


# Scope.

WORDS = st.text(max_size=6)


SCOPES = st.tuples(WORDS, WORDS, st.sampled_from(JSON_APIS))


@given(SCOPES, SCOPES)
@example(("a", "bc", Api.CHAT), ("ab", "c", Api.CHAT))
@example(('a","b', "c", Api.CHAT), ("a", 'b","c', Api.CHAT))
@example(("a\x00b", "c", Api.CHAT), ("a", "b\x00c", Api.CHAT))
@example(("\ud800", "c", Api.CHAT), ("\\ud800", "c", Api.CHAT))
def test_two_accounts_never_meet(one: tuple[str, str, Api], other: tuple[str, str, Api]) -> None:
    first, second = (
        key({"input": "?"}, api, account=AccountId(account), route=RouteName(route))
        for account, route, api in (one, other)
    )
    assert (first.scope == second.scope) is (one == other)
    assert (first.text == second.text) is (one == other)


def test_a_member_does_not_pass_for_another_part() -> None:
    keys = [
        key({"x": 1}),
        key({"x": {"y": 1}}),
        key({"input": {"x": 1}}),
        key({"messages": {"x": 1}}),
        key({}, variants={"x": "1"}),
        key({"x": "1"}, variants={}),
        key({}, params=(("x", b"2"),)),
    ]
    assert len({found.text for found in keys}) == len(keys)


# Parameters and headers.


def test_parameters_of_the_route_are_part_of_it() -> None:
    cool, warm = (("temperature", b"0.3"),), (("temperature", b"0.9"),)
    assert key({}, params=cool) != key({}, params=warm) != key({})
    assert key({}, params=cool) == key({"temperature": 0.3}) == key({"temperature": 0.3}, params=warm)
    assert key({"temperature": None}, params=cool) == key({"temperature": None})
    assert key({}, params=(("a", b'{"b":1,"c":2}'),)) == key({}, params=(("a", b'{ "c":2, "b":1 }'),))


def test_headers_that_decide() -> None:
    sent = {
        "Accept": "audio/mpeg",
        "OpenAI-Beta": "b, a",
        "Anthropic-Version": "2023-06-01",
        "Cookie": "x",
        "x-tag": "1",
    }
    assert variants(sent, Api.SPEECH) == {"accept": "audio/mpeg", "openai-beta": "a,b"}
    assert variants(sent, Api.CHAT) == {"openai-beta": "a,b"}
    assert variants({**sent, "Anthropic-Version": "2099-01-01"}, Api.CHAT)["anthropic-version"] == "2099-01-01"
    assert variants({"x-penstock-tier": "economy", "X-Penstock-Provider": "groq"}, Api.CHAT) == {
        "x-penstock-tier": "economy",
        "x-penstock-provider": "groq",
    }
    assert variants(sent, Api.CHAT, also=["x-tag"]) == {"openai-beta": "a,b", "x-tag": "1"}
    beta = {"anthropic-beta": "tools"}
    assert key({}, Api.MESSAGES, variants=variants(beta, Api.MESSAGES)) != key({}, Api.MESSAGES)


# Refused.


@pytest.mark.parametrize(
    ("api", "fields", "words"),
    [
        (Api.PASSTHROUGH, {}, "a path that is not read"),
        (Api.RESPONSES, {"previous_response_id": "resp_1"}, "'previous_response_id'"),
        (Api.RESPONSES, {"conversation": {"id": "conv_1"}}, "'conversation'"),
        (Api.RESPONSES, {"background": True}, "'background'"),
        (Api.RESPONSES, {"store": True}, "'store'"),
        (Api.RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "its input refers"),
        (Api.RESPONSES, {"tools": [{"type": "code_interpreter", "container": "c"}]}, "the tool 'code_interpreter'"),
        (Api.RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://..."}]}, "the tool 'mcp'"),
        (Api.CHAT, {"store": True}, "'store'"),
        (Api.CHAT, {"deferred": True}, "'deferred'"),
        (Api.MESSAGES, {"container": "container_1"}, "'container'"),
        (Api.MESSAGES, {"mcp_servers": [{"url": "https://..."}]}, "'mcp_servers'"),
        (Api.MESSAGES, {"tools": [{"type": "code_execution_20250825"}]}, "the tool 'code_execution_20250825'"),
    ],
)
def test_what_depends_on_more_than_the_request_is_refused(api: Api, fields: dict[str, Any], words: str) -> None:
    found = key_of(json.dumps(fields).encode(), api)
    assert isinstance(found, Uncacheable)
    assert words in found.reason


def test_what_says_nothing_is_not_refused() -> None:
    for fields in (
        {"previous_response_id": None, "conversation": None, "background": False, "store": False},
        {"tools": [{"type": "function", "name": "mcp"}, 7], "input": ["item_reference", {"type": None}]},
        {"tools": None, "input": "item_reference"},
        {"n": 3, "previous_response_id": ""},
    ):
        assert isinstance(key_of(json.dumps(fields).encode(), Api.RESPONSES), KeyParts)


def test_a_parameter_may_make_it_uncacheable() -> None:
    assert isinstance(key_of(b"{}", params=(("store", b"true"),)), Uncacheable)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1e19", "1" + "0" * 300])
@pytest.mark.parametrize("place", ['{"seed":%s}', '{"messages":[{"a":[%s]}]}', '{"x":{"y":%s}}'])
def test_numbers_that_are_not_known_exactly_are_refused(number: str, place: str) -> None:
    found = key_of((place % number).encode())
    assert found == Uncacheable("it holds a number beyond 64 bits, which is not known exactly")


def test_numbers_that_are() -> None:
    numbers = ["18446744073709551615", "-9223372036854775808", "9007199254740993", "9007199254740992", "1e16", "1e-300"]
    numbers += ["0.1", "0.10000000000000001"]
    keys = [key_of(b'{"seed":%s,"input":"1e19"}' % number.encode()) for number in numbers]
    assert all(isinstance(found, KeyParts) for found in keys)
    assert len({found.text for found in keys if isinstance(found, KeyParts)}) == len(numbers) - 1


def test_what_no_request_may_hold() -> None:
    for raw in (b'{"seed":NaN}', b'{"seed":Infinity}', b'{"seed":1e999}', b'{"user":"\\ud800"}'):
        with pytest.raises(BodyError):
            read(raw)


def test_documents_that_orjson_does_not_write() -> None:
    fields: list[dict[str, Any]] = [
        {"seed": 2**70},
        {"seed": 2**70 + 1},
        {"x": "\ud800"},
        {"x": "\\ud800"},
        {"x": "\ud801"},
    ]
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]
    fields += [{"x": deep}, {"x": [deep]}]
    keys = [digest(ACME, ROUTE, Api.CHAT, Body(json.dumps(one).encode(), one, None)) for one in fields]
    assert len({found.text for found in keys if isinstance(found, KeyParts)}) == len(fields)


def test_the_deepest_body() -> None:
    for levels in (DEPTH_MAX - 1, DEPTH_MAX - 2):
        raw = b'{"x":' + b"[" * levels + b"]" * levels + b"}"
        assert isinstance(key_of(raw), KeyParts)


# Members that stand twice.


@pytest.mark.parametrize(
    "raw",
    [
        '{"messages":[{"content":"x","content":"y"}]}',
        '{"temperature":0,"temperature":0}',
        r'{"a":{"x\\":1,"x\\":2}}',
        r'{"a":{"x":"\\","x":"\\"}}',
        r'{"a":{"x":1,"\u0078":2}}',
        r'{"a":{"x":1,"x":2},"b":"\u0022\u0022\u0022"}',
        r'{"a":{"\\":"\\","\\":"\\"},"b":"\u005c"}',
    ],
)
def test_a_member_that_stands_twice_is_refused(raw: str) -> None:
    assert key_of(raw.encode()) == Uncacheable("a member stands twice in an object of its body")


MEMBERS = st.lists(st.tuples(st.sampled_from(['"', "\\", 'a\\"', "a", ""]), st.sampled_from(['"', "\\", "\\\\", "x"])))


@given(st.lists(MEMBERS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_whatever_the_spelling_of_quotes(objects: list[list[tuple[str, str]]], rng: random.Random) -> None:
    texts = []
    for members in objects:
        inside = ",".join(f"{spelled(name, rng)}:{spelled(value, rng)}" for name, value in members)
        texts.append(f"{{{inside}}}")
    raw = f'{{"messages":[{",".join(texts)}]}}'.encode()
    twice = any(len({name for name, _ in members}) < len(members) for members in objects)
    assert isinstance(key_of(raw), Uncacheable) is twice
    assert _repeats_exactly(raw) is twice


def test_the_key_of_a_version_does_not_change() -> None:
    """Kept answers are found by it: who changes what goes into the key changes `VERSION` too."""
    raw = orjson.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "Ça va ?"}], "temperature": 0.5, "stream": True}
    )
    found = key_of(raw, params=(("top_p", b"0.9"),), variants={"openai-beta": "a"})
    assert isinstance(found, KeyParts)
    assert found.text == "1.d69e559b599589070c4b503b7e147633e1fe378fe570ea4013acd0cc35ae9797"
