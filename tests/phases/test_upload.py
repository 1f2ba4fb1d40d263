"""A form on its way: each target gets the same bytes with its own model, however the reads fall."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.failure import FailureKind, Rejected
from proxy.core.multipart import FormScanner
from proxy.phases.upload import Upload
from proxy.ports import BodyRefused, ClientGone

FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(range(256)) * 3 + b"\r\n"
MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nasked\r\n'
END = b"--b--\r\n"


class Body:
    """A request body, read in given steps; ``fails`` at its end."""

    def __init__(self, raw: bytes, steps: list[int], fails: Exception | None = None) -> None:
        self.length: int | None = len(raw)
        self.closed = False
        self.reads = 0
        self._raw, self._steps, self._fails = raw, steps or [1 << 20], fails

    async def at(self, position: int) -> bytes:
        await asyncio.sleep(0)
        step = self._steps[self.reads % len(self._steps)]
        self.reads += 1
        if position == len(self._raw) and self._fails is not None:
            raise self._fails
        return self._raw[position : position + step]

    def close(self) -> None:
        self.closed = True


def passed(upload: Upload, model: str) -> bytes:
    async def all_of_it() -> bytes:
        patch = upload.patch(model)
        whole = b"".join([part async for part in upload.patched(patch)])
        assert upload.length(patch) == len(whole)
        return whole

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("raw", [FILE + MODEL + END, MODEL + FILE + END], ids=["file first", "model first"])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_each_target_gets_its_own_model(raw: bytes, steps: list[int]) -> None:
    upload = Upload(Body(raw, steps), FormScanner(b"b"))
    assert asyncio.run(upload.find_model()) == "asked"
    for model in ("m", "a/much/longer:name", "asked"):
        assert passed(upload, model) == raw.replace(b"asked", model.encode())
    assert upload.seen_bytes == len(raw)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_a_form_without_a_model_gets_one(steps: list[int]) -> None:
    upload = Upload(Body(FILE + END, steps), FormScanner(b"b"))
    assert asyncio.run(upload.find_model()) is None
    assert passed(upload, "m") == MODEL.replace(b"asked", b"m") + FILE + END


def test_a_body_that_is_no_form_passes_as_it_is() -> None:
    upload = Upload(Body(b"anything at all", [4]), None)
    assert asyncio.run(upload.find_model()) is None
    assert upload.patch("m") is None
    assert asyncio.run(_joined(upload)) == b"anything at all"


async def _joined(upload: Upload) -> bytes:
    return b"".join([part async for part in upload.patched(None)])


def test_no_more_is_read_than_it_takes_to_know_the_model() -> None:
    body = Body(MODEL + FILE + END, [len(MODEL) + 5])
    assert asyncio.run(Upload(body, FormScanner(b"b")).find_model()) == "asked"
    assert body.reads == 1


async def test_two_readers_at_once_scan_every_byte_once() -> None:
    raw = MODEL + FILE + END
    upload = Upload(Body(raw, [7, 3, 11]), FormScanner(b"b"))
    await upload.find_model()

    async def read(model: str) -> bytes:
        return b"".join([part async for part in upload.patched(upload.patch(model))])

    one, other = await asyncio.gather(read("x"), read("yy"))
    assert (one, other) == (raw.replace(b"asked", b"x"), raw.replace(b"asked", b"yy"))


@pytest.mark.parametrize(
    ("raw", "fails", "kind"),
    [
        (MODEL + FILE + MODEL + END, None, FailureKind.BAD_REQUEST),
        (MODEL + FILE, None, FailureKind.BAD_REQUEST),
        (MODEL + FILE[:80], BodyRefused(FailureKind.BODY_TOO_LARGE, "too large"), FailureKind.BODY_TOO_LARGE),
    ],
    ids=["a second model", "no end", "too large"],
)
async def test_what_ends_the_reading_is_kept_for_the_client(
    raw: bytes, fails: Exception | None, kind: FailureKind
) -> None:
    upload = Upload(Body(raw, [50], fails), FormScanner(b"b"))
    await upload.find_model()
    with pytest.raises(Rejected):
        async for _ in upload.patched(upload.patch("m")):
            pass
    assert isinstance(upload.problem, Rejected)
    assert upload.problem.failure.kind is kind


async def test_a_client_that_leaves_while_it_sends() -> None:
    upload = Upload(Body(MODEL + FILE[:80], [50], ClientGone()), FormScanner(b"b"))
    await upload.find_model()
    with pytest.raises(ClientGone):
        async for _ in upload.patched(upload.patch("m")):
            pass
    assert isinstance(upload.problem, ClientGone)
    upload.close()
