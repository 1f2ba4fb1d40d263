"""A request body understood: what is asked for, and the answer's text before any API's form is put around it."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import cycle, islice
from types import MappingProxyType
from typing import Any, Final

import orjson

from proxy.simulator import material
from proxy.simulator.form import File, Form
from proxy.simulator.material import FILLER, PIECE, Material
from proxy.simulator.reader import Request
from proxy.simulator.schema import example
from proxy.terms import Api, Usage

CHOICES_MAX: Final = 128  # OpenAI's own bound of `n`, read 2025-06-01
EXCERPT_CHARS_MAX: Final = 160
BYTES_A_TOKEN: Final = 4
_JSON_PIECE_CHARS: Final = 12
_SAYS: Final = (
    "This is Penstock's simulator, a scripted provider on this machine: no model was asked and nothing is billed. "
    "You said: “%s” To see a failure, ask for the model “cut:5” or “429:2”; `penstock simulate --list` names them all."
)


class Refused(Exception):  # noqa: N818 - it names what happened to the request
    """The request is one that a provider answers with 400 (or `status`)."""

    def __init__(self, message: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param


class Finish(Enum):
    STOP = auto()
    LENGTH = auto()
    TOOL = auto()


class UsagePlace(Enum):
    """Where a chat stream reports its usage."""

    ASKED = auto()  # in a last chunk without choices, if `stream_options.include_usage` asks for it
    NOWHERE = auto()
    LAST_CHOICE = auto()  # Mistral: in the chunk that ends the choice, unasked
    X_GROQ = auto()  # Groq: `x_groq.usage` in the chunk that ends the choice
    IN_CHOICE = auto()  # Moonshot: `choices[0].usage`
    EVERY = auto()  # vLLM's continuous usage: counted up in every chunk


@dataclass(frozen=True, slots=True)
class ToolCall:
    """``arguments`` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ask:
    """``pieces`` are the answer's text (or the tool call's arguments, images, sound) as it is cut into content events.

    ``fields`` is the body as it was decoded, for what only one API's answer repeats; ``files`` are those that came in it.
    ``digest`` makes ids: the same request is answered with the same bytes.
    """

    api: Api
    request: Request
    fields: Mapping[str, Any]
    model: str
    digest: bytes
    stream: bool
    pieces: Sequence[str]
    tool: ToolCall | None
    finish: Finish
    usage: Usage
    include_usage: bool
    choices: int
    usage_place: UsagePlace = UsagePlace.ASKED
    files: Sequence[File] = ()
    filler: Sequence[str] = FILLER

    @property
    def binary(self) -> bool:
        """The answer is a stream of bytes, not of events."""
        return self.api is Api.SPEECH and not material.in_events(self.fields)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def read(api: Api, request: Request) -> Ask:
    """Errors: `Refused` where the body is not a JSON object, or form, with a model."""
    form = request.form
    fields = _json_fields(request) if form is None else _form_fields(api, form)
    dialect = _DIALECTS[api]
    model = fields.get("model", dialect.model)
    if not isinstance(model, str) or not model:
        raise Refused("you must provide a model parameter", param="model")
    options = fields.get("stream_options")
    files = () if form is None else form.files
    made: Material | None = None
    if dialect.make is None:
        pieces, tool, finish = _answer(dialect, fields)
    else:
        made = dialect.make(fields, files)
        pieces, tool, finish = made.pieces, None, Finish.STOP
    return Ask(
        api=api,
        request=request,
        fields=fields,
        model=model,
        digest=b"%08x" % zlib.crc32(request.body),
        stream=dialect.always_streams or (dialect.streams and material.is_true(fields.get("stream"))),
        pieces=pieces,
        tool=tool,
        finish=finish,
        usage=Usage(_tokens(request.body_bytes), _tokens_of(pieces)),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=_choices(fields.get("n")),
        files=files,
        filler=FILLER if made is None else made.filler,
    )


def bare(api: Api, request: Request, model: str, *, stream: bool = False) -> Ask:
    """An ask without a body: one that is not over yet, or of a path that takes none."""
    pieces = PIECE.findall(_SAYS % "nothing")
    return Ask(
        api=api,
        request=request,
        fields={"model": model},
        model=model,
        digest=b"%08x" % zlib.crc32(f"{request.method} {request.path}".encode()),
        stream=stream,
        pieces=pieces,
        tool=None,
        finish=Finish.STOP,
        usage=Usage(1, _tokens_of(pieces)),
        include_usage=False,
        choices=1,
    )


def _json_fields(request: Request) -> dict[str, Any]:
    try:
        fields = orjson.loads(request.body)
    except orjson.JSONDecodeError as problem:
        raise Refused(f"We could not parse the JSON body of your request: {problem}.") from None
    if not isinstance(fields, dict):
        raise Refused(f"Expected a JSON object as the body, got {type(fields).__name__}.")
    return fields


def _form_fields(api: Api, form: Form) -> dict[str, Any]:
    """Each field's text, or texts where it came more than once; the brackets of `image[]` are how a form says list."""
    if not _DIALECTS[api].takes_forms:
        raise Refused("Unsupported content type: 'multipart/form-data'. This API takes 'application/json'.", 415)
    if form.problem is not None:
        raise Refused(f"We could not parse the multipart body of your request: {form.problem}.")
    return {name.removesuffix("[]"): given[0] if len(given) == 1 else given for name, given in form.fields.items()}


def with_pieces(ask: Ask, pieces: Sequence[str]) -> Ask:
    """The same request answered with this text, and no tool."""
    usage = replace(ask.usage, output_tokens=_tokens_of(pieces))
    return replace(ask, pieces=pieces, tool=None, finish=Finish.STOP, usage=usage)


def with_events(ask: Ask, count: int) -> Ask:
    """The same request answered with `count` content events of filler."""
    return with_pieces(ask, tuple(islice(cycle(ask.filler), count)))


def with_tool(ask: Ask) -> Ask:
    """The same request answered with a tool call, whatever it offers."""
    tool = ask.tool or ToolCall("lookup", '{"query":"water level","unit":"metres"}')
    return replace(ask, tool=tool, pieces=_cut(tool.arguments), finish=Finish.TOOL)


def _answer(dialect: "_Dialect", fields: dict[str, Any]) -> tuple[Sequence[str], ToolCall | None, Finish]:
    said, from_user = dialect.said(fields)
    if from_user and (tool := _tool(fields)) is not None:
        return _cut(tool.arguments), tool, Finish.TOOL
    if (json_text := _structured(fields)) is not None:
        return _cut(json_text), None, Finish.STOP
    text = _SAYS % _excerpt(said)
    tokens_max = next((fields[name] for name in dialect.tokens_max if isinstance(fields.get(name), int)), None)
    if tokens_max is None or len(encoded := text.encode()) <= max(tokens_max, 1) * BYTES_A_TOKEN:
        return PIECE.findall(text), None, Finish.STOP
    kept = encoded[: max(tokens_max, 1) * BYTES_A_TOKEN].decode(errors="ignore")
    return PIECE.findall(kept), None, Finish.LENGTH


def _excerpt(said: str) -> str:
    line = " ".join(said[: EXCERPT_CHARS_MAX * 4].split())
    return line if len(line) <= EXCERPT_CHARS_MAX else line[: EXCERPT_CHARS_MAX - 1] + "…"


def _cut(json_text: str) -> list[str]:
    return [json_text[at : at + _JSON_PIECE_CHARS] for at in range(0, len(json_text), _JSON_PIECE_CHARS)]


def _tokens(size: int) -> int:
    return max(1, size // BYTES_A_TOKEN)


def _tokens_of(pieces: Sequence[str]) -> int:
    return _tokens(len("".join(pieces).encode(errors="replace")))


def _choices(asked: Any) -> int:
    return min(max(material.number(asked) or 1, 1), CHOICES_MAX)


# What was said ------------------------------------------------------------------------------------------------------


def _text_of(content: Any) -> str:
    """A message's text: its content, or the text parts of its content; images and files say nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return " ".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _said_in(messages: Any) -> tuple[str, bool]:
    """The last user message's text, and whether the user speaks last (a tool's result is not the user's)."""
    if not isinstance(messages, list) or not messages:
        return "", False
    users = (one for one in reversed(messages) if isinstance(one, dict) and one.get("role") == "user")
    said = next((text for one in users if (text := _text_of(one.get("content")))), "")
    last = messages[-1] if isinstance(messages[-1], dict) else {}
    return said, last.get("role") == "user" and not _holds_result(last.get("content"))


def _holds_result(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in content
    )


def _chat_said(fields: dict[str, Any]) -> tuple[str, bool]:
    return _said_in(fields.get("messages"))


def _responses_said(fields: dict[str, Any]) -> tuple[str, bool]:
    asked = fields.get("input")
    return (asked, True) if isinstance(asked, str) else _said_in(asked)


def _prompt_said(fields: dict[str, Any]) -> tuple[str, bool]:
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        prompt = next((one for one in reversed(prompt) if isinstance(one, str)), "")
    return (prompt if isinstance(prompt, str) else ""), False


def _nothing_said(_fields: dict[str, Any]) -> tuple[str, bool]:
    return "", False


@dataclass(frozen=True, slots=True)
class _Dialect:
    """``tokens_max``: the names under which an API takes the answer's longest length, the preferred one first. ``make``:
    what its answers are made of, where that is no text. ``model``: whose answer it is where none is named.
    """

    said: Callable[[dict[str, Any]], tuple[str, bool]] = _nothing_said
    tokens_max: tuple[str, ...] = ()
    streams: bool = False  # where `stream` asks for it
    always_streams: bool = False
    takes_forms: bool = False
    make: Callable[[Mapping[str, Any], Sequence[File]], Material] | None = None
    model: str = ""


_DIALECTS: Final[Mapping[Api, _Dialect]] = MappingProxyType(
    {
        Api.CHAT: _Dialect(_chat_said, ("max_completion_tokens", "max_tokens"), streams=True),
        Api.COMPLETIONS: _Dialect(_prompt_said, ("max_tokens",), streams=True),
        Api.RESPONSES: _Dialect(_responses_said, ("max_output_tokens",), streams=True),
        Api.MESSAGES: _Dialect(_chat_said, ("max_tokens",), streams=True),
        Api.COUNT_TOKENS: _Dialect(),
        Api.EMBEDDINGS: _Dialect(),
        Api.MODERATIONS: _Dialect(make=material.nothing, model="omni-moderation-latest"),
        Api.IMAGES: _Dialect(make=material.pictures, streams=True, model="gpt-image-1"),
        Api.IMAGE_EDITS: _Dialect(make=material.pictures, streams=True, takes_forms=True, model="gpt-image-1"),
        Api.SPEECH: _Dialect(make=material.sound, always_streams=True),
        Api.TRANSCRIPTIONS: _Dialect(make=material.transcript, streams=True, takes_forms=True),
        Api.TRANSLATIONS: _Dialect(make=material.transcript, takes_forms=True),
        Api.RERANK: _Dialect(make=material.nothing),
    }
)


# Tools and schemas --------------------------------------------------------------------------------------------------


def _tool(fields: dict[str, Any]) -> ToolCall | None:
    """The tool that `tool_choice` names, else the first; None where tools are absent or refused."""
    offered, choice = fields.get("tools"), fields.get("tool_choice")
    if not isinstance(offered, list) or "none" in (choice, _member(choice, "type")):
        return None
    tools = [found for one in offered if (found := _declared(one)) is not None]
    wanted = _member(_member(choice, "function"), "name") or _member(choice, "name")
    name, schema = next((one for one in tools if one[0] == wanted), tools[0] if tools else ("", None))
    return ToolCall(name, orjson.dumps(example(schema) or {}).decode()) if name else None


def _declared(offered: Any) -> tuple[str, Any] | None:
    """Name and schema of a function, as chat, Responses or Messages declare it."""
    function = _member(offered, "function") or offered
    name = _member(function, "name")
    schema = _member(function, "parameters") or _member(function, "input_schema") or {"type": "object"}
    return (name, schema) if isinstance(name, str) and name else None


def _structured(fields: dict[str, Any]) -> str | None:
    """JSON text, where a schema (or any JSON) is asked for."""
    wanted = (
        fields.get("response_format")
        or _member(fields.get("text"), "format")
        or _member(fields.get("output_config"), "format")
    )
    match _member(wanted, "type"):
        case "json_schema":
            schema = _member(_member(wanted, "json_schema"), "schema") or _member(wanted, "schema")
            return orjson.dumps(example(schema or {"type": "object"})).decode()
        case "json_object":
            return '{"answer":"simulated text"}'
        case _:
            return None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
