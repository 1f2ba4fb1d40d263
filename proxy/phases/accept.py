"""Phase 2, accept: is this a request that we understand? The body is kept as it came; few fields are looked at."""

from typing import Any, Final

from proxy.core import duration, media_type, redact
from proxy.core.dialect import DIALECTS
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.multipart import FormScanner, boundary_of
from proxy.core.splice import BodyError, read
from proxy.phases.exchange import Exchange
from proxy.phases.upload import Upload
from proxy.ports import BodyRefused, Downstream
from proxy.terms import Api

JSON_BYTES_MAX: Final = 32 * 1024 * 1024
UPLOAD_BYTES_MAX: Final = 200 * 1024 * 1024
FORMS: Final = (Api.TRANSCRIPTIONS, Api.TRANSLATIONS, Api.IMAGE_EDITS)
CHOICES_MAX: Final = 128  # OpenAI's own bound of `n`
MODEL_CHARS_MAX: Final = 512
TIMEOUT_S_MAX: Final = 24 * 3600.0


async def accept(x: Exchange, downstream: Downstream) -> None:
    """Read the body and the fields that we act on, or as much of a form as it takes to know its model. Raises `Rejected`."""
    content_type = x.headers.get("content-type")
    if x.api is Api.PASSTHROUGH:
        x.upload = _upload(downstream, None)
    elif x.api in FORMS and not media_type.is_json(content_type):
        x.upload = _upload(downstream, FormScanner(_boundary(content_type)))
        x.asked = _named(await x.upload.find_model())
    else:
        await _read(x, downstream, content_type)


async def _read(x: Exchange, downstream: Downstream, content_type: str | None) -> None:
    not_json = media_type.refusal(content_type)
    if not_json is not None:
        raise _bad(not_json)
    try:
        raw = await downstream.body(JSON_BYTES_MAX)
    except BodyRefused as refusal:
        raise Rejected(Failure(refusal.kind, str(refusal))) from None
    try:
        x.body = read(raw)
    except BodyError as error:
        raise _bad(str(error), error.param) from None
    fields = x.body.fields
    x.asked = _model(fields)
    x.streamed = _stream(fields) and x.api in DIALECTS
    options = fields.get("stream_options")
    x.wants_usage = type(options) is dict and options.get("include_usage") is True
    x.choices = _choices(fields) * (_prompts(fields) if x.api is Api.COMPLETIONS else 1)


def _upload(downstream: Downstream, scanner: FormScanner | None) -> Upload:
    try:
        return Upload(downstream.upload(UPLOAD_BYTES_MAX), scanner)
    except BodyRefused as refusal:
        raise Rejected(Failure(refusal.kind, str(refusal))) from None


def _boundary(content_type: str | None) -> bytes:
    boundary = boundary_of(content_type or "")
    if boundary is None:
        raise _bad(
            "The content-type must be multipart/form-data with one boundary of up to 70 characters, "
            f"got {redact.cut(content_type or 'none', 80)!r}. With curl, use: -F model=... -F file=@..."
        )
    return boundary


def requested_timeout_s(x: Exchange) -> float | None:
    """What `x-penstock-timeout` asks for, in seconds (`30`) or with a unit (`500ms`); None where it asks for nothing."""
    text = x.headers.get("x-penstock-timeout")
    if text is None:
        return None
    seconds = duration.parse(text, default_unit="s")
    if seconds is None or not 0 < seconds <= TIMEOUT_S_MAX:
        raise _bad(
            f"x-penstock-timeout must be seconds or a duration such as 30s or 500ms, got {redact.cut(text, 40)!r}."
        )
    return seconds


def _model(fields: dict[str, Any]) -> str | None:
    model = fields.get("model")
    if model is None or model == "":
        return None
    if type(model) is not str:
        raise _bad(f"'model' must be a string that names a route or a model, got {_shown(model)}.", "model")
    return _named(model)


def _named(model: str | None) -> str | None:
    if model is not None and len(model) > MODEL_CHARS_MAX:
        raise _bad(f"'model' must be at most {MODEL_CHARS_MAX} characters long, got {len(model)}.", "model")
    return model


def _stream(fields: dict[str, Any]) -> bool:
    stream = fields.get("stream")
    if stream is not None and type(stream) is not bool:
        raise _bad(f"'stream' must be true or false, got {_shown(stream)}.", "stream")
    options = fields.get("stream_options")
    if options is not None and type(options) is not dict:
        raise _bad(f"'stream_options' must be an object, got {_shown(options)}.", "stream_options")
    return stream is True


def _choices(fields: dict[str, Any]) -> int:
    choices = fields.get("n")
    if choices is None:
        return 1
    if type(choices) is not int or not 1 <= choices <= CHOICES_MAX:
        raise _bad(f"'n' must be a whole number from 1 to {CHOICES_MAX}, got {_shown(choices)}.", "n")
    return choices


def _prompts(fields: dict[str, Any]) -> int:
    """How many prompts a completions request has: a list of texts or of token lists is one each."""
    prompt = fields.get("prompt")
    return len(prompt) if type(prompt) is list and prompt and type(prompt[0]) in (str, list) else 1


def _shown(value: object) -> str:
    text = repr(value)
    return redact.cut(text, 40) + ("..." if len(text) > 40 else "")


def _bad(message: str, param: str | None = None) -> Rejected:
    return Rejected(Failure(FailureKind.BAD_REQUEST, message, param=param))
