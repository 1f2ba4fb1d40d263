"""Forms written part by part, so that the place of every value is known before it is looked for."""

import email.parser
import email.policy
import itertools
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.multipart import HEAD_BYTES_MAX, MODEL_BYTES_MAX, PARTS_MAX, FormError, FormScanner, boundary_of

BOUNDARY = b"----edge-7f"


class Part(NamedTuple):
    name: str
    value: bytes
    filename: str | None = None
    more: bytes = b""


def written(parts: list[Part], boundary: bytes = BOUNDARY) -> bytes:
    body = b""
    for part in parts:
        head = f'Content-Disposition: form-data; name="{part.name}"'.encode()
        if part.filename is not None:
            head += f'; filename="{part.filename}"'.encode()
        body += b"--" + boundary + b"\r\n" + head + b"\r\n" + part.more + b"\r\n" + part.value + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


def scanned(body: bytes, cuts: list[int] | None = None, boundary: bytes = BOUNDARY) -> FormScanner:
    scanner = FormScanner(boundary)
    edges = [0, *sorted(cuts or []), len(body)]
    for start, end in itertools.pairwise(edges):
        scanner.feed(body[start:end])
    scanner.finish()
    return scanner


def by_email(body: bytes, boundary: bytes = BOUNDARY) -> dict[str, bytes]:
    """The slow reference: the standard library's parser."""
    head = b'Content-Type: multipart/form-data; boundary="' + boundary + b'"\r\n\r\n'
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    read = {}
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        read[str(part.get_param("name", header="content-disposition"))] = payload
    return read


AUDIO = Part("file", bytes(range(256)) * 8, "speech.wav", b"Content-Type: audio/wav\r\n")
FIELDS = st.lists(
    st.builds(
        Part,
        st.sampled_from(["file", "language", "prompt", "models", "Model", "mode", "temperature"]),
        st.binary(max_size=60).filter(lambda value: b"--" + BOUNDARY not in value),
        st.sampled_from([None, "a.wav", "model"]),
        st.sampled_from([b"", b"Content-Type: text/plain\r\n"]),
    ),
    max_size=5,
)
MODELS = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp", "Zs", "Cf", "Cn", "Co"]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(before=FIELDS, after=FIELDS, model=MODELS, other=MODELS, data=st.data())
def test_any_form_in_any_chunking(
    before: list[Part], after: list[Part], model: str, other: str, data: st.DataObject
) -> None:
    body = written([*before, Part("model", model.encode()), *after])
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=30))
    scanner = scanned(body, cuts)
    assert scanner.model == model
    patch = scanner.patch(other)
    changed = body[: patch.start] + patch.value + body[patch.end :]
    assert changed == written([*before, Part("model", other.encode()), *after])
    assert len(changed) - len(body) == patch.growth


@settings(max_examples=200, deadline=None)
@given(parts=FIELDS, data=st.data())
def test_a_form_without_a_model_gets_one_at_its_front(parts: list[Part], data: st.DataObject) -> None:
    body = written(parts)
    if not parts:
        body = b"--" + BOUNDARY + b"--\r\n"
    scanner = scanned(body, data.draw(st.lists(st.integers(0, len(body)), max_size=30)))
    assert scanner.model is None
    patch = scanner.patch("m")
    assert body[: patch.start] + patch.value + body[patch.end :] == written([Part("model", b"m"), *parts])


def test_as_the_standard_librarys_parser_reads_it() -> None:
    body = written([AUDIO, Part("model", b"whisper-1"), Part("language", b"en")])
    scanner = scanned(body)
    patch = scanner.patch("other/model:1")
    changed = body[: patch.start] + patch.value + body[patch.end :]
    assert by_email(body)["model"] == b"whisper-1"
    assert by_email(changed)["model"] == b"other/model:1"
    assert by_email(changed)["language"] == b"en"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000])
def test_byte_by_byte(size: int) -> None:
    body = written([AUDIO, Part("model", b"whisper-1"), Part("language", b"en")])
    scanner = scanned(body, list(range(0, len(body), size)))
    assert scanner.model == "whisper-1"
    assert scanner.model_span == (body.index(b"whisper-1"), body.index(b"whisper-1") + 9)


def test_little_is_kept() -> None:
    scanner = FormScanner(BOUNDARY)
    scanner.feed(b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    for _ in range(100):
        scanner.feed(bytes(65536))
        assert len(scanner._held) < len(BOUNDARY) + 4


def test_the_model_is_known_as_soon_as_its_value_has_come() -> None:
    scanner = FormScanner(BOUNDARY)
    body = written([Part("model", b"m"), AUDIO])
    known = body.index(b"\r\n--" + BOUNDARY) + len(BOUNDARY) + 4
    scanner.feed(body[: known - 1])
    assert scanner.model is None
    scanner.feed(body[known - 1 : known])
    assert scanner.model == "m"


EDGE = b"--" + BOUNDARY
MODEL_HEAD = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is cut"),
        (b"x", "does not begin"),
        (b"preamble\r\n" + written([AUDIO]), "does not begin"),
        (written([AUDIO])[:-6], "is cut"),
        (written([AUDIO]) + b"more", "goes on behind"),
        (EDGE + b" \r\n", "followed by something else"),
        (EDGE + b"\n" + MODEL_HEAD + b"m\r\n" + EDGE + b"--", "followed by something else"),
        (EDGE + b"\r\n\r\nm\r\n" + EDGE + b"--", "needs one content-disposition"),
        (written([Part("model", b"a"), AUDIO, Part("model", b"b")]), "stands twice"),
        (written([Part("model", b"a" * (MODEL_BYTES_MAX + 1))]), "longer than"),
        (EDGE + MODEL_HEAD + b"a" * 5000, "longer than"),
        (written([Part("model", b"\xff")]), "not UTF-8"),
        (written([Part("model", b"a\nb")]), "one line"),
        (written([Part("model", b"a\x00")]), "one line"),
        (written([Part("model", b"a", "a.txt")]), "plain text"),
        (written([Part("mod\\el", b"a")]), "plain text"),
        (written([Part("model", b"YQ==", None, b"Content-Transfer-Encoding: base64\r\n")]), "plain text"),
        (EDGE + b"\r\n" + b"a" * (HEAD_BYTES_MAX + 1), "is larger than"),
        (written([Part("a", b"")] * (PARTS_MAX + 1)), "more than"),
        # What lenient parsers take for a delimiter would hide a second field from us.
        (written([Part("x", EDGE + MODEL_HEAD + b"dear")]), "within a line"),
        (written([Part("x", b"y\n" + EDGE + MODEL_HEAD + b"dear")]), "within a line"),
        (written([Part("x", b"", None, b'Content-Disposition: form-data; name="model"\r\n')]), "needs one"),
        (written([Part("x", b"", None, b" folded: yes\r\n")]), "folded"),
        (written([Part("x", b"", None, b'a: b\nContent-Disposition: form-data; name="model"\r\n')]), "does not end"),
        (
            EDGE + b"\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nm\r\n" + EDGE + b"--",
            "needs one name",
        ),
        (
            EDGE + b"\r\nContent-Disposition: form-data; name=a; name*=utf-8''model\r\n\r\nm\r\n" + EDGE + b"--",
            "needs one name",
        ),
        (
            EDGE + b"\r\nContent-Disposition: form-data; name=a; name=model\r\n\r\nm\r\n" + EDGE + b"--",
            "needs one name",
        ),
        (
            EDGE + b"\r\nContent-Disposition: attachment; name=model\r\n\r\nm\r\n" + EDGE + b"--",
            "of the kind form-data",
        ),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes, words: str) -> None:
    for cuts in ([], list(range(len(body)))):
        with pytest.raises(FormError, match=words):
            scanned(body, cuts)


def test_an_unquoted_name_and_other_cases_of_letters() -> None:
    body = EDGE + b"\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n" + EDGE + b"--"
    assert scanned(body).model == "m"
    body = EDGE + b'\r\nCONTENT-DISPOSITION: Form-Data; NAME="model"\r\n\r\nm\r\n' + EDGE + b"--"
    assert scanned(body).model == "m"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; boundary="a b"', b"a b"),
        ("Multipart/Form-Data; charset=utf-8; Boundary=abc", b"abc"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        (f"multipart/form-data; boundary={'a' * 71}", None),
        ("multipart/form-data; boundary=a\x01", None),
        ('multipart/form-data; boundary="a\\"b"', None),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundaries(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary
