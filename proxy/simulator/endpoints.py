"""Which path is answered by what, and what becomes of its body. A new API is a row in the catalogue's paths, in `ask`'s
dialects and in `delivery`'s tables.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import orjson

from proxy.providers.catalogue import PATHS
from proxy.simulator.answers import stored
from proxy.simulator.answers.stream import CREATED_AT
from proxy.simulator.ask import Refused, bare
from proxy.simulator.delivery import normal
from proxy.simulator.form import MULTIPART, FormReader
from proxy.simulator.intake import Intake, Interruption, Streamed, Whole
from proxy.simulator.memory import Memory
from proxy.simulator.reader import Request
from proxy.simulator.scripts.table import SCRIPTS, error, interruption, perform, play
from proxy.simulator.wire import JSON, Steps, head, length
from proxy.terms import Api

_POSTED: Final[Mapping[str, Api]] = MappingProxyType({path: api for api, path in PATHS.items()})
_PREFIX: Final = "/v1"
_MODELS: Final = "/models"
_PLAIN_MODEL: Final = "simulator"
_BYTES: Final = b"application/octet-stream"


def begin(request: Request, memory: Memory) -> Intake:
    """What takes the body of a request whose head has come."""
    api = _POSTED.get(_below(request)) if request.method == "POST" else None

    def respond(whole: Request) -> Steps:
        return answer(whole, memory)

    def interrupting(begun: Request, model: str) -> Interruption | None:
        return interruption(api or Api.PASSTHROUGH, begun, model, memory)

    if request.content_type.lower().startswith(MULTIPART):
        return Streamed(request, respond, interrupting, FormReader(request.content_type))
    if api is None:
        return Streamed(request, respond, interrupting, None)
    return Whole(request, respond, interrupting)


def answer(request: Request, memory: Memory) -> Steps:
    path = _below(request)
    api = _POSTED.get(path)
    is_models = path == _MODELS or path.startswith(_MODELS + "/")
    allowed = "POST" if api is not None else "GET" if is_models else request.method
    if request.method == "HEAD":
        return iter((head(200 if allowed == "HEAD" else 405, JSON, length(b"")),))
    if request.method != allowed:
        return error(None, 405, f"Not allowed to {request.method} on {request.path}; it takes {allowed}.")
    if api is not None:
        return perform(api, request, memory)
    if path == _MODELS:
        return _document({"object": "list", "data": [_model(name) for name in (_PLAIN_MODEL, *SCRIPTS)]})
    if is_models:
        return _document(_model(unquote(path.removeprefix(_MODELS + "/"))))  # any name is served
    if not request.path.startswith(_PREFIX + "/"):
        return error(None, 404, f"Unknown request URL: {request.method} {request.path}.")
    try:
        return _stored(request, path.removeprefix("/"), memory)
    except Refused as refused:
        return error(None, refused.status, refused.message, refused.param)


def _stored(request: Request, path: str, memory: Memory) -> Steps:
    """A path without an API. `?script=NAME` chooses what happens, as a model's name does elsewhere."""
    query = parse_qs(request.query)
    if "script" in query:
        return play(bare(Api.PASSTHROUGH, request, query["script"][0]), memory)
    kind, _, name = path.partition("/")
    match kind, name.partition("/")[2]:
        case "files", "" | "content":
            found = stored.files(request, name, memory)
            return _document(found) if isinstance(found, Mapping) else _bytes(found)
        case "batches", "" | "cancel":
            return _document(stored.batches(request, name, memory))
        case "responses", "" | "cancel":
            return _response(request, name.partition("/")[0], streamed=query.get("stream") == ["true"])
        case "responses", "input_items":
            return _document({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})
        case _:
            return normal(bare(Api.PASSTHROUGH, request, _PLAIN_MODEL))


def _response(request: Request, response_id: str, *, streamed: bool) -> Steps:
    """Any id is known, and its answer the same each time."""
    if request.method == "DELETE":
        return _document({"id": response_id, "object": "response", "deleted": True})
    ask = bare(Api.RESPONSES, request, _PLAIN_MODEL, stream=streamed)
    return normal(replace(ask, digest=response_id.removeprefix("resp_").encode()))


def _below(request: Request) -> str:
    return request.path.removeprefix(_PREFIX)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED_AT, "owned_by": "penstock"}


def _document(fields: Mapping[str, Any]) -> Steps:
    body = orjson.dumps(fields)
    return iter((head(200, JSON, length(body)) + body,))


def _bytes(body: bytes) -> Steps:
    return iter((head(200, _BYTES, length(body)) + body,))
