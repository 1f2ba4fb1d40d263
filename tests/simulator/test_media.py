"""Moderation, images, sound, transcripts and rerank, as the official client reads them."""

import base64
import hashlib
import io
import struct
import wave
import zlib
from functools import partial
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from openai.types import ModerationImageURLInputParam, ModerationTextInputParam

from proxy.simulator.server import Simulator

from .client import FILE, ask, data_of, form_of

SHA256 = hashlib.sha256(FILE).hexdigest()
RECEIVED = [
    {
        "field": "file",
        "filename": "weir.bin",
        "content_type": "application/x-weir",
        "bytes": len(FILE),
        "sha256": SHA256,
    }
]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)


async def _translate(client: openai.AsyncOpenAI, **asked: Any) -> Any:
    with pytest.deprecated_call():  # the client calls it that; providers have it all the same
        return await client.audio.translations.create(**asked)


def check_png(data: bytes) -> bytes:
    """Every chunk's checksum, the order, and the pixels' number; returns the pixels."""
    assert data.startswith(PNG_SIGNATURE)
    at, kinds, packed, size = 8, [], b"", (0, 0)
    while at < len(data):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        kinds.append(kind)
        size = struct.unpack_from(">II", body) if kind == b"IHDR" else size
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    pixels = zlib.decompress(packed)
    assert len(pixels) == size[1] * (1 + 3 * size[0]) > 0
    return pixels


# Moderations.


async def test_each_input_has_its_verdict(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.moderations.create(
            model="omni", input=["calm water", "Violence at the weir", "self-harm"]
        )
        one = await client.moderations.create(input="calm water")
    assert [result.flagged for result in answer.results] == [False, True, True]
    assert answer.results[1].categories.violence
    assert not answer.results[1].categories.hate
    assert answer.results[1].category_scores.violence > 0.9 > answer.results[0].category_scores.violence
    assert answer.results[2].categories.self_harm
    assert answer.model == "omni"
    assert len(one.results) == 1


async def test_an_input_of_parts_has_one_verdict(base_url: str) -> None:
    parts: list[ModerationTextInputParam | ModerationImageURLInputParam] = [
        {"type": "text", "text": "hate"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    async with _client(base_url) as client:
        answer = await client.moderations.create(model="omni", input=parts)
    (result,) = answer.results
    assert result.flagged
    assert result.category_applied_input_types.violence == ["text", "image"]
    assert result.category_applied_input_types.hate == ["text"]


# Images.


async def test_images_are_small_pictures(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.images.generate(
            model="gpt-image-1", prompt="A weir", n=3, size="1024x1536", quality="low"
        )
    assert answer.data is not None
    drawn = [check_png(base64.b64decode(image.b64_json or "")) for image in answer.data]
    assert len(set(drawn)) == 3
    assert (answer.size, answer.quality, answer.output_format) == ("1024x1536", "low", "png")
    assert answer.usage is not None
    details = answer.usage.input_tokens_details
    assert details.image_tokens + details.text_tokens == answer.usage.input_tokens
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_an_image_by_its_url(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.images.generate(model="dall-e-2", prompt="A weir", response_format="url")
    assert answer.data is not None
    url = answer.data[0].url or ""
    assert answer.data[0].b64_json is None
    check_png(base64.b64decode(url.removeprefix("data:image/png;base64,")))


@pytest.mark.parametrize(("asked", "drafts"), [(None, 2), (0, 0), (1, 1), (3, 3), (50, 3)])
async def test_an_image_stream(base_url: str, asked: int | None, drafts: int) -> None:
    more: dict[str, Any] = {} if asked is None else {"partial_images": asked}
    async with _client(base_url) as client:
        stream = await client.images.generate(model="gpt-image-1", prompt="A weir", stream=True, **more)
        events: list[Any] = [event async for event in stream]
    assert [event.type for event in events] == [
        *["image_generation.partial_image"] * drafts,
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:-1]] == list(range(drafts))
    for event in events:
        check_png(base64.b64decode(event.b64_json))
    assert events[-1].usage.total_tokens > 0


async def test_an_image_stream_has_event_lines_and_no_done(base_url: str) -> None:
    answer = await ask(base_url, "images", "any", stream=True)
    kinds = [line[7:] for line in answer.body.split(b"\n") if line.startswith(b"event: ")]
    assert kinds == [orjson.loads(data)["type"].encode() for data in data_of(answer.body)]
    assert b"[DONE]" not in answer.body
    assert answer.whole


@pytest.mark.parametrize("stream", [False, True])
async def test_images_are_edited_by_a_form(base_url: str, simulator: Simulator, stream: bool) -> None:
    images = [("one.png", b"first", "image/png"), ("two.png", b"second!", "image/png")]
    told: Any
    async with _client(base_url) as client:
        if stream:
            async for event in await client.images.edit(
                model="gpt-image-1", image=images, prompt="Mist", n=1, stream=True
            ):
                told = event
            assert told.type == "image_edit.completed"
        else:
            told = await client.images.edit(
                model="gpt-image-1", image=images, mask=("mask.png", b"m"), prompt="Mist", n=2
            )
            assert len(told.data) == 2
            check_png(base64.b64decode(told.data[1].b64_json))
    sizes = [(one["field"], one["filename"], one["bytes"]) for one in told.received]
    expected = [("image[]", "one.png", 5), ("image[]", "two.png", 7)]
    assert sizes == (expected if stream else [*expected, ("mask", "mask.png", 1)])
    assert told.usage.input_tokens_details.image_tokens > 0
    form = simulator.requests[0].form
    assert form is not None
    assert (form.fields["model"], form.fields["prompt"]) == (["gpt-image-1"], ["Mist"])


async def test_images_are_edited_by_json(base_url: str) -> None:
    asked = {"model": "gpt-image-1", "prompt": "Mist", "images": [{"image_url": "data:image/png;base64,AAAA"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(base_url + "/images/edits", json=asked) as answer,
    ):
        check_png(base64.b64decode((await answer.json())["data"][0]["b64_json"]))


# Speech.


async def test_speech_is_a_sound(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.audio.speech.create(
            model="tts-1", input="How high is the water?", voice="alloy", response_format="wav"
        )
    assert answer.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 24000)
        assert sound.getnframes() == 5 * 480
        assert len(sound.readframes(sound.getnframes())) == 2 * 5 * 480
        assert len(set(answer.content[44:1004])) > 10  # no silence


@pytest.mark.parametrize(
    ("asked", "content_type", "mark"),
    [
        (None, "audio/mpeg", b"\xff\xfb\x90"),
        ("mp3", "audio/mpeg", b"\xff\xfb\x90"),
        ("opus", "audio/ogg", b"OggS"),
        ("aac", "audio/aac", b"\xff\xf1"),
        ("flac", "audio/flac", b"fLaC"),
        ("pcm", "audio/pcm", b"\x00\x00"),
    ],
)
async def test_speech_comes_in_the_format_asked_for(
    base_url: str, asked: str | None, content_type: str, mark: bytes
) -> None:
    more: dict[str, Any] = {} if asked is None else {"response_format": asked}
    answer = await ask(base_url, "speech", "tts-1", **more)
    assert f"content-type: {content_type}\r\n".encode() in answer.head
    assert b"transfer-encoding: chunked" in answer.head
    assert answer.body.startswith(mark)
    assert len(answer.body) > 1000
    assert answer.whole


async def test_every_frame_of_an_mp3_is_as_long_as_it_says(base_url: str) -> None:
    body = (await ask(base_url, "speech", "tts-1")).body
    frame = 144 * 128_000 // 44_100
    assert len(body) % frame == 0
    assert all(body[at : at + 4] == b"\xff\xfb\x90\x64" for at in range(0, len(body), frame))


async def test_speech_comes_a_word_at_a_time(base_url: str) -> None:
    async with (
        _client(base_url) as client,
        client.audio.speech.with_streaming_response.create(
            model="paced:4:20ms", input="any", voice="alloy", response_format="pcm"
        ) as answer,
    ):
        sizes = [len(chunk) async for chunk in answer.iter_bytes()]
    assert sizes == [960] * 4


async def test_speech_in_events(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.audio.speech.create(
            model="gpt-4o-mini-tts", input="one two three", voice="alloy", response_format="pcm", stream_format="sse"
        )
    assert answer.response.headers["content-type"].startswith("text/event-stream")
    events = [orjson.loads(data) for data in data_of(answer.content)]
    assert [event["type"] for event in events] == [*["speech.audio.delta"] * 3, "speech.audio.done"]
    assert [len(base64.b64decode(event["audio"])) for event in events[:-1]] == [960] * 3
    usage = events[-1]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


# Transcriptions and translations.


async def test_a_transcription_says_what_came(base_url: str) -> None:
    async with _client(base_url) as client:
        answer: Any = await client.audio.transcriptions.create(
            model="whisper-1", file=("weir.bin", FILE, "application/x-weir"), language="en"
        )
        translated = await _translate(client, model="whisper-1", file=("weir.bin", FILE))
    for told in (answer, translated):
        assert f"weir.bin, {len(FILE)} bytes, SHA-256 {SHA256}" in told.text
        assert told.received[0]["sha256"] == SHA256
    assert answer.received == RECEIVED
    assert answer.usage.type == "tokens"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize("api", ["transcriptions", "translations"])
@pytest.mark.parametrize(
    ("asked", "beginning"),
    [
        ("text", "This is what"),
        ("srt", "1\n00:00:00,000 --> 00:00:00,"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00."),
    ],
)
async def test_a_transcript_as_text(base_url: str, api: str, asked: Any, beginning: str) -> None:
    async with _client(base_url) as client:
        create = client.audio.transcriptions.create if api == "transcriptions" else partial(_translate, client)
        text: Any = await create(model="whisper-1", file=("weir.bin", FILE), response_format=asked)
    assert isinstance(text, str)
    assert text.startswith(beginning)
    assert SHA256 in text
    assert b"content-type: text/plain; charset=utf-8" in (await ask(base_url, api, "any", response_format=asked)).head


async def test_a_transcript_with_segments(base_url: str) -> None:
    async with _client(base_url) as client:
        answer = await client.audio.transcriptions.create(
            model="whisper-1",
            file=("weir.bin", b"a" * 32_000),
            response_format="verbose_json",
            timestamp_granularities=["segment"],
        )
        translated = await _translate(
            client, model="whisper-1", file=("weir.bin", b"a" * 32_000), response_format="verbose_json"
        )
    assert answer.duration == translated.duration == 2.0
    assert answer.segments is not None
    assert (answer.segments[0].start, answer.segments[0].end) == (0.0, 2.0)
    assert answer.usage is not None
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 2.0)


async def test_a_transcript_stream(base_url: str) -> None:
    async with _client(base_url) as client:
        stream = await client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("weir.bin", FILE, "application/x-weir"), stream=True
        )
        events: list[Any] = [event async for event in stream]
    assert [event.type for event in events] == [
        *["transcript.text.delta"] * (len(events) - 1),
        "transcript.text.done",
    ]
    assert len(events) > 5
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert SHA256 in events[-1].text
    assert events[-1].usage.total_tokens > 0
    assert events[-1].received == RECEIVED


async def test_the_model_may_stand_behind_the_file(base_url: str) -> None:
    last = await ask(base_url, "transcriptions", "429:7", model_last=True)
    assert (last.status, b"retry-after: 7\r\n" in last.head) == (429, True)
    plain = await ask(base_url, "transcriptions", "any", model_last=True)
    assert plain.json()["received"] == RECEIVED


@pytest.mark.parametrize(
    ("body", "content_type", "status", "told"),
    [
        (form_of("transcriptions", "any")[:-8], None, 400, "multipart body"),
        (b"no form at all", None, 400, "multipart body"),
        (form_of("transcriptions", "any"), "multipart/form-data", 400, "names no boundary"),
        (form_of("transcriptions", ""), None, 400, "provide a model"),
        (form_of("transcriptions", "any", prompt="a" * 300_000), None, 400, "longer than 262144 bytes"),
    ],
)
async def test_what_is_no_form_is_refused(
    base_url: str, body: bytes, content_type: str | None, status: int, told: str
) -> None:
    form = "multipart/form-data; boundary=a-boundary-of-the-tests"
    headers = {"content-type": content_type or form}
    async with (
        aiohttp.ClientSession() as session,
        session.post(base_url + "/audio/transcriptions", data=body, headers=headers) as answer,
    ):
        assert answer.status == status
        assert told in (await answer.json())["error"]["message"]


async def test_an_api_of_json_takes_no_form(base_url: str) -> None:
    form = aiohttp.FormData({"model": "any"})
    form.add_field("file", b"x", filename="x")
    async with aiohttp.ClientSession() as session, session.post(base_url + "/embeddings", data=form) as answer:
        assert answer.status == 415


# Rerank.


async def test_the_most_relevant_document_comes_first(base_url: str) -> None:
    whole = (await ask(base_url, "rerank", "any")).json()
    assert [result["index"] for result in whole["results"]] == [1, 2, 0]
    scores = [result["relevance_score"] for result in whole["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert whole["usage"]["total_tokens"] > 0
    assert whole["meta"]["billed_units"] == {"search_units": 1}
    assert "document" not in whole["results"][0]


async def test_the_best_documents_with_their_text(base_url: str) -> None:
    documents = ["a dry field", {"text": "the high water"}]
    some = (await ask(base_url, "rerank", "any", documents=documents, top_n=1, return_documents=True)).json()
    (best,) = some["results"]
    assert (best["index"], best["document"]) == (1, {"text": "the high water"})
    assert (await ask(base_url, "rerank", "any", documents=[])).json()["results"] == []


# Usage, and faults, of all of them.


@pytest.mark.parametrize(
    ("api", "stream"),
    [
        ("images", False),
        ("images", True),
        ("image_edits", False),
        ("image_edits", True),
        ("transcriptions", False),
        ("transcriptions", True),
        ("rerank", False),
    ],
)
async def test_usage_is_as_told(base_url: str, api: str, stream: bool) -> None:
    body = (await ask(base_url, api, "tokens:7:9", stream=stream)).body
    last = orjson.loads(data_of(body)[-1] if stream else body)
    assert last["usage"].get("input_tokens", last["usage"].get("prompt_tokens")) == 7
    assert b'"usage"' not in (await ask(base_url, api, "no-usage", stream=stream)).body


async def test_usage_of_speech_in_events(base_url: str) -> None:
    body = (await ask(base_url, "speech", "tokens:7:9", stream_format="sse")).body
    assert orjson.loads(data_of(body)[-1])["usage"] == {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}
    assert b"usage" not in (await ask(base_url, "speech", "no-usage", stream_format="sse")).body


STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("images", {"stream": True}),
    ("image_edits", {"stream": True}),
    ("speech", {"stream_format": "sse"}),
    ("transcriptions", {"stream": True}),
]


@pytest.mark.parametrize(("api", "more"), STREAMS)
@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ("cut:0", ("eof", 0, False)),
        ("cut:3", ("eof", 3, False)),
        ("reset:2", ("reset", 2, False)),
        ("stall:2", ("open", 2, False)),
        ("mid-event:2", ("eof", 2, False)),
        ("clean-end:2", ("open", 2, True)),
        ("events:50", ("open", 51, True)),
        ("paced:3:1ms", ("open", 4, True)),
        ("head-then-fin", ("open", 0, True)),
        ("error-event:2", ("open", 3, True)),
        ("error-first:429", ("open", 1, True)),
    ],
)
async def test_streams_of_events_break_like_others(
    base_url: str, api: str, more: dict[str, Any], model: str, ending: tuple[str, int, bool]
) -> None:
    """``ending``: of the connection; how many events came; whether the framing came to its end."""
    answer = await ask(base_url, api, model, silence=model.startswith("stall"), **more)
    assert (answer.end, len(data_of(answer.body)), answer.whole) == ending


@pytest.mark.parametrize(("api", "more"), STREAMS)
@pytest.mark.parametrize("size", [2000, 1_000_000])
async def test_a_big_event_has_its_size(base_url: str, api: str, more: dict[str, Any], size: int) -> None:
    answer = await ask(base_url, api, f"big-event:{size}", **more)
    assert size in [len(event) + 2 for event in answer.body.split(b"\n\n")]


@pytest.mark.parametrize(
    ("model", "end", "size", "whole"),
    [
        ("cut:0", "eof", 0, False),
        ("cut:3", "eof", 3 * 960, False),
        ("reset:3", "reset", 3 * 960, False),
        ("stall:3", "open", 3 * 960, False),
        ("clean-end:3", "open", 3 * 960, True),
        ("error-event:3", "eof", 3 * 960, False),
        ("bad-json:3", "eof", 3 * 960, False),
        ("mid-event:3", "eof", 3 * 960 + 480, False),
        ("after-done-reset", "reset", 5 * 960, False),
        ("head-then-cut", "eof", 0, False),
        ("big-event:5000", "open", 5000, True),
        ("split:7", "open", 5 * 960, True),
        ("comments", "open", 5 * 960, True),
        ("no-done", "open", 5 * 960, True),
        ("keepalive:1", "open", 5 * 960, True),
    ],
)
async def test_a_sound_breaks(base_url: str, model: str, end: str, size: int, whole: bool) -> None:
    silent = model.startswith("stall")
    answer = await ask(base_url, "speech", model, response_format="pcm", silence=silent)
    assert (answer.end, len(answer.body), answer.whole) == (end, size, whole)
    assert b"content-type: audio/pcm" in answer.head


@pytest.mark.parametrize("api", ["moderations", "images", "image_edits", "speech", "transcriptions", "rerank"])
@pytest.mark.parametrize(("model", "status"), [("401", 401), ("429:3", 429), ("500", 500), ("413", 413)])
async def test_errors_are_openais(base_url: str, api: str, model: str, status: int) -> None:
    answer = await ask(base_url, api, model)
    assert answer.status == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert b"content-type: application/json" in answer.head


@pytest.mark.parametrize("api", ["moderations", "images", "transcriptions", "translations", "rerank"])
@pytest.mark.parametrize("asked", [{}, {"response_format": "text"}])
async def test_a_whole_answer_is_cut_half_way(base_url: str, api: str, asked: dict[str, Any]) -> None:
    answer = await ask(base_url, api, "cut", **asked)
    announced = int(answer.head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert (answer.end, len(answer.after_head)) == ("eof", announced // 2)
    plain = "response_format" in asked and api in ("transcriptions", "translations")
    assert (b"content-type: text/plain" in answer.head) is plain
