"""Bodies that Hypothesis writes character by character, so that the span of `model` is known before it is looked for."""

import json
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.splice import ACTED_ON, DEPTH_MAX, Body, BodyError, _model_span, _walk, read, rewrite
from tests.core.streams import Recording, recordings
from tests.stopwatch import Stopwatch

# Documents.

KEYS = [
    "model",
    "mod\\u0065l",
    "\\u006Dodel",
    "\\u006d\\u006f\\u0064\\u0065\\u006C",
    "Model",
    "models",
    "mode",
    " model",
    "model ",
    '\\"model\\"',
    "model\\\\",
    "\\u004dodel",
    "stream",
    "stre\\u0061m",
    "stream_options",
    "stream\\u005foptions",
    "stream\\u005Foptions",
    "n",
    "\\u006e",
    "N",
    "messages",
    "",
    "a",
    "é",
    "\\ud83d\\ude00",
    "{",
    "}",
    ":",
    ",",
    "\\n",
]
SCALARS = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1.0",
    "1e5",
    "1E+2",
    "-1.5e-3",
    "18446744073709551615",
    "0.1000000000000000055511151231257827",
    '""',
    '"model"',
    '"\\"model\\":\\"x\\""',
    '"\\\\"',
    '"\\\\\\""',
    '"}{]["',
    '"mod\\u0065l"',
    '"\\u0000"',
    '"\\/"',
    '"\u2028"',
    '"\U0001f600"',
    '"gpt-4o"',
    '"stream"',
    '"n"',
    "{}",
    "[]",
    "[ ]",
    "{ }",
]
_SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n", "  "])


class Member(NamedTuple):
    key: str
    before_colon: str
    after_colon: str
    value: str
    after: str
    before: str

    @property
    def name(self) -> str:
        name: str = json.loads(f'"{self.key}"')
        return name

    @property
    def text(self) -> str:
        return f'{self.before}"{self.key}"{self.before_colon}:{self.after_colon}{self.value}{self.after}'


class Document(NamedTuple):
    """``model`` is the span of the top-level value, as the writer knows it; ``twice`` the acted-on names that repeat."""

    raw: bytes
    model: tuple[int, int] | None
    names: list[str]

    @property
    def twice(self) -> set[str]:
        return {name for name in ACTED_ON if self.names.count(name) > 1}


def _members(values: st.SearchStrategy[str]) -> st.SearchStrategy[Member]:
    return st.builds(Member, st.sampled_from(KEYS), _SPACES, _SPACES, values, _SPACES, _SPACES)


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(values, max_size=3).map(lambda items: f"[{','.join(items)}]")
    objects = st.lists(_members(values), max_size=3).map(
        lambda members: "{" + ",".join(member.text for member in members) + "}"
    )
    return arrays | objects


_VALUES = st.recursive(st.sampled_from(SCALARS), _containers, max_leaves=5)


def written(members: list[Member], before: str = "", after: str = "", inside: str = "") -> Document:
    text = before + "{"
    model = None
    for number, member in enumerate(members):
        text += "," if number else ""
        if member.name == "model":
            start = len((text + member.text).encode()) - len((member.value + member.after).encode())
            model = start, start + len(member.value.encode())
        text += member.text
    text += (inside if not members else "") + "}" + after
    return Document(text.encode(), model, [member.name for member in members])


_DOCUMENTS = st.builds(written, st.lists(_members(_VALUES), max_size=6), _SPACES, _SPACES, _SPACES)
_INSERTS = st.lists(
    st.tuples(st.sampled_from(["stream_options", "temperature", "é"]), st.sampled_from([b"1", b'{"a":[]}', b'"x"'])),
    max_size=2,
    unique_by=lambda member: member[0],
)


def exactly(raw: bytes) -> Any:
    """A document whose numbers keep their form, its members as pairs in order."""
    return json.loads(raw, parse_float=str, parse_int=str, object_pairs_hook=lambda pairs: ("object", pairs))


def member(key: str, value: str) -> Member:
    return Member(key, "", "", value, "", "")


@settings(max_examples=600)
@given(document=_DOCUMENTS, model=st.sampled_from(["gpt-4o", 'a"b\\', "é/\u2028", ""]), insert=_INSERTS)
@example(document=written([member("a", '"model"'), member("model", '"x"')]), model="m", insert=[])
@example(document=written([member("mod\\u0065l", '"x"')]), model="m", insert=[])
@example(document=written([member("model", '"x"'), member("mod\\u0065l", '"y"')]), model="m", insert=[])
@example(document=written([member("model", "1")]), model="m", insert=[])
@example(document=written([], inside=" \n "), model="m", insert=[("n", b"1")])
def test_only_the_model_and_what_is_inserted_changes(
    document: Document, model: str, insert: list[tuple[str, bytes]]
) -> None:
    if document.twice:
        with pytest.raises(BodyError) as refusal:
            read(document.raw)
        assert refusal.value.param in document.twice
        return
    body = read(document.raw)
    assert body.raw == document.raw
    assert body.model_span == document.model
    assert _walk(document.raw) == document.model

    result = rewrite(body, model, insert)
    value = orjson.dumps(model)
    added = [(name, orjson.dumps(name) + b":" + text) for name, text in insert]
    if document.model is None:
        added.insert(0, ("model", b'"model":' + value))
        expected = document.raw
    else:
        start, end = document.model
        expected = document.raw[:start] + value + document.raw[end:]
    head, _, tail = expected.rpartition(b"}")
    comma = b"," if added and document.names else b""
    assert result == head + comma + b",".join(text for _, text in added) + b"}" + tail

    _, before = exactly(document.raw)
    _, after = exactly(result)
    assert [pair if pair[0] != "model" else ("model", model) for pair in before] == after[: len(before)]
    assert [name for name, _ in after[len(before) :]] == [name for name, _ in added]
    assert json.loads(result)["model"] == model


@settings(max_examples=300)
@given(document=_DOCUMENTS)
def test_the_short_way_and_the_walk_agree(document: Document) -> None:
    fields = orjson.loads(document.raw)
    if document.twice:
        for find in (_walk, lambda raw: _model_span(raw, fields)):
            with pytest.raises(BodyError) as refusal:
                find(document.raw)
            assert refusal.value.param in document.twice
    else:
        assert _model_span(document.raw, fields) == _walk(document.raw) == document.model


def test_a_rewritten_body_can_be_rewritten_for_the_next_target() -> None:
    body = read(b'{"model":"a","n":1}')
    assert rewrite(body, "longer/model") == b'{"model":"longer/model","n":1}'
    assert rewrite(body, "b", [("stream_options", b"{}")]) == b'{"model":"b","n":1,"stream_options":{}}'
    assert body.raw == b'{"model":"a","n":1}'


SPANS = {
    "first": b'{"model":>"a"<,"x":1}',
    "last": b'{"x":1,"model":>"a"<}',
    "spaced": b' {\n "model" \t:\r\n >"a"< } ',
    "null": b'{"model": >null<}',
    "number": b'{"model":>1.50<}',
    "object": b'{"model":>{"model":"b"}<}',
    "array": b'{"model":>[{"model":"b"},"]"]<}',
    "after a nested one": b'{"x":{"model":"b"},"model":>"a"<}',
    "before a nested one": b'{"model":>"a"<,"x":[{"model":"b"}]}',
    "beside its own name": b'{"x":"model","model":>"model"<}',
    "quoted in a text": b'{"x":"\\"model\\":\\"b\\"","model":>"a"<}',
    "escaped key": b'{"mod\\u0065l":>"a"<}',
    "escaped key beside a nested one": b'{"x":{"model":"b"},"\\u006dodel":>"a"<}',
    "escapes in the value": b'{"model":>"a\\"\\\\,}"<,"n":1}',
    "raw characters": '{"é\u2028":"\U0001f600","model":>"é"<}'.encode(),
}


@pytest.mark.parametrize("marked", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("trailing", [b"", b" ", b"\n\n", b"\r\n\t "])
def test_where_the_model_stands(marked: bytes, trailing: bytes) -> None:
    start, end = marked.index(b">"), marked.index(b"<") - 1
    raw = marked.replace(b">", b"").replace(b"<", b"") + trailing
    assert read(raw).model_span == (start, end)


@pytest.mark.parametrize("raw", [b"{}", b"{ }", b'{"x":"model"}', b'{"x":{"model":"a"}}', b'{"Model":"a"}'])
def test_a_body_without_a_model_gets_one(raw: bytes) -> None:
    body = read(raw)
    assert body.model_span is None
    assert orjson.loads(rewrite(body, "m")) == {**orjson.loads(raw), "model": "m"}


@pytest.mark.parametrize("name", ACTED_ON)
@pytest.mark.parametrize("escaped", [False, True])
def test_a_field_that_decides_must_not_stand_twice(name: str, escaped: bool) -> None:
    again = f"\\u{ord(name[0]):04x}{name[1:]}" if escaped else name
    with pytest.raises(BodyError, match="twice") as refusal:
        read(f'{{"{name}":1,"x":{{"{name}":2}},"{again}":3}}'.encode())
    assert refusal.value.param == name
    assert read(f'{{"{name}":1,"x":{{"{name}":2,"{again}":3}}}}'.encode()).fields[name] == 1


@pytest.mark.parametrize(("name", "at"), [(name, at) for name in ACTED_ON for at in range(len(name))])
@pytest.mark.parametrize("digits", ["04x", "04X"])
def test_any_letter_may_be_escaped_to_hide_a_duplicate(name: str, at: int, digits: str) -> None:
    again = f"{name[:at]}\\u{ord(name[at]):{digits}}{name[at + 1 :]}"
    with pytest.raises(BodyError, match="twice"):
        read(f'{{"{name}":1,"{again}":2}}'.encode())
    assert _walk(f'{{"{again}":1}}'.encode()) == _model_span(f'{{"{again}":1}}'.encode(), {name: 1})


def test_a_duplicate_that_decides_nothing_is_the_providers_business() -> None:
    raw = b'{"temperature":1,"temperature":2,"model":"a"}'
    assert rewrite(read(raw), "b") == b'{"temperature":1,"temperature":2,"model":"b"}'


# What is refused.

REFUSED = {
    "nothing": (b"", "empty"),
    "space": (b" \r\n\t ", "empty"),
    "BOM": (b'\xef\xbb\xbf{"model":"a"}', "not valid JSON"),
    "UTF-16": ('{"model":"a"}'.encode("utf-16"), "not valid JSON"),
    "an array": (b"[]", "an array"),
    "a string": (b'"model"', "a string"),
    "a number": (b"1.5", "a number"),
    "an integer": (b"-1", "a number"),
    "a boolean": (b"true", "a boolean"),
    "null": (b"null", "null"),
    "cut": (b'{"model":"a"', "not valid JSON"),
    "cut in a string": (b'{"model":"a', "not valid JSON"),
    "trailing garbage": (b'{"model":"a"}x', "not valid JSON"),
    "two documents": (b"{}{}", "not valid JSON"),
    "trailing NUL": (b"{}\0", "not valid JSON"),
    "trailing comma": (b'{"model":"a",}', "not valid JSON"),
    "single quotes": (b"{'model':'a'}", "not valid JSON"),
    "a comment": (b"{}//", "not valid JSON"),
    "NaN": (b'{"n":NaN}', "not valid JSON"),
    "Infinity": (b'{"n":-Infinity}', "not valid JSON"),
    "1e400": (b'{"n":1e400}', "not valid JSON"),
    "leading zero": (b'{"n":01}', "not valid JSON"),
    "lone surrogate": (b'{"model":"\\ud800"}', "not valid JSON"),
    "low surrogate first": (b'{"model":"\\udc00\\ud800"}', "not valid JSON"),
    "raw surrogate": (b'{"model":"\xed\xa0\x80"}', "not valid JSON"),
    "invalid UTF-8": (b'{"model":"\xff"}', "not valid JSON"),
    "raw NUL": (b'{"model":"\0"}', "not valid JSON"),
    "raw line end": (b'{"model":"a\n"}', "not valid JSON"),
    "form fields": (b"model=a&stream=true", "not valid JSON"),
    "255 objects": (b'{"a":' * 255 + b"1" + b"}" * 255, "deeper than 254"),
    "255 levels of arrays": (b'{"a":' + b"[" * 254 + b"]" * 254 + b"}", "deeper than 254"),
    "1,025 objects": (b'{"a":' * 1025 + b"1" + b"}" * 1025, "deeper than 254"),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper than 254"),
    "100,000 arrays": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper than 254"),
    "100,000 unclosed": (b"[" * 100_000, "deeper than 254"),
    "1,025 deep behind the model": (b'{"model":"a","x":' + b"[" * 1025 + b"]" * 1025 + b"}", "deeper than 254"),
}


@pytest.mark.parametrize(("raw", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_request_is_refused_quickly(raw: bytes, words: str) -> None:
    watch = Stopwatch.patient()
    with pytest.raises(BodyError) as refusal:
        read(raw)
    assert watch.spent_s < 0.05
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_254_levels_are_read_and_can_be_written(opening: bytes) -> None:
    levels = DEPTH_MAX - 1
    closing = b"}" if opening[:1] == b"{" else b"]"
    inner = b"1" if opening[:1] == b"{" else b""
    raw = b'{"model":"a","x":' + opening * levels + inner + closing * levels + b"}"
    body = read(raw)
    assert orjson.dumps(body.fields) == raw
    assert rewrite(body, "b") == raw.replace(b'"model":"a"', b'"model":"b"')


def test_an_escaped_nul_is_checked_and_forwarded_as_the_same_value() -> None:
    body = read(b'{"model":"a\\u0000b"}')
    assert body.fields["model"] == "a\0b"
    assert rewrite(body, body.fields["model"]) == b'{"model":"a\\u0000b"}'


@settings(max_examples=400)
@given(raw=st.binary(max_size=40) | st.text(alphabet='{}[]":,\\model n1eu0065', max_size=40).map(str.encode))
def test_any_bytes_are_a_body_or_a_body_error(raw: bytes) -> None:
    try:
        body = read(raw)
    except BodyError:
        return
    assert isinstance(body, Body)
    assert orjson.loads(rewrite(body, "m")) == {**orjson.loads(raw), "model": "m"}


LARGE = {
    "an image": b'{"messages":[{"content":"' + b"iVBORw0KGgo" * 200_000 + b'"}],"model":"a"}',
    "escapes": b'{"messages":[{"content":"' + b'\\n\\"' * 200_000 + b'"}],"model":"a"}',
    "many names": b'{"messages":[' + b",".join([b'{"model":"n"}'] * 50_000) + b'],"model":"a"}',
    "many members": b"{" + b"".join(b'"%d":%d,' % (at, at) for at in range(100_000)) + b'"mod\\u0065l":"a"}',
    "backslashes": b'{"x":"' + b"\\\\" * 500_000 + b'","\\u006dodel":"a"}',
}


@pytest.mark.parametrize("raw", LARGE.values(), ids=LARGE)
def test_large_bodies_take_linear_time(raw: bytes) -> None:
    watch = Stopwatch.patient()
    result = rewrite(read(raw), "bb")
    assert watch.spent_s < 1.0
    assert len(result) == len(raw) + 1


def names_a_model(recording: Recording) -> bool:
    """Whether its request was recorded, whole, and is JSON with a model."""
    try:
        return "model" in json.loads(recording.meta.get("request") or "{}")
    except json.JSONDecodeError:
        return False


@pytest.mark.parametrize("recording", recordings(".json", names_a_model))
def test_recorded_requests(recording: Recording) -> None:
    raw = recording.meta["request"].encode()
    result = rewrite(read(raw), "m")
    assert exactly(result) == exactly(raw.replace(orjson.dumps(json.loads(raw)["model"]), b'"m"', 1))
