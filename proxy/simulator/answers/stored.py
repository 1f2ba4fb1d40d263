"""What a provider keeps between requests, and every path that has no answer of its own. Source:
platform.openai.com/docs/api-reference/files and .../batch, read 2026-11-21.

Files are listed, told and forgotten as a provider does it, but their bytes are not kept: a file's content is a line that
says how many they were, and their hash.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.simulator.answers.stream import CREATED_AT
from proxy.simulator.ask import Ask, Refused
from proxy.simulator.memory import Memory, Shelf
from proxy.simulator.reader import Request

_ID_CHARS: Final = 24
_WINDOW_S: Final = 24 * 3600


def echo(ask: Ask) -> bytes:
    """What was asked, told: the answer to a path that has no other."""
    request = ask.request
    told: dict[str, Any] = {
        "object": "simulator.echo",
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "content_type": request.content_type,
        "body_bytes": request.body_bytes,
        "body_sha256": request.body_sha256,
    }
    if request.form is not None:
        told["fields"] = request.form.fields
    return orjson.dumps(told)


def files(request: Request, name: str, memory: Memory) -> Mapping[str, Any] | bytes:
    """``/files`` and what is below it; `name` is ``""``, an id, or an id and ``/content``. Errors: `Refused`."""
    if not name:
        return memory.files.put(_uploaded(request)) if request.method == "POST" else _listed(memory.files)
    file_id, _, part = name.partition("/")
    found = memory.files.take(file_id) if request.method == "DELETE" else memory.files.get(file_id)
    if found is None:
        raise Refused(f"No such File object: {file_id}", 404, "id")
    if request.method == "DELETE":
        return {"id": file_id, "object": "file", "deleted": True}
    if part == "content":
        return orjson.dumps({"bytes": found["bytes"], "sha256": found["sha256"]}) + b"\n"
    return found


def batches(request: Request, name: str, memory: Memory) -> Mapping[str, Any]:
    """``/batches``; `name` is ``""``, an id, or an id and ``/cancel``. Every batch is done when it is next asked about."""
    if not name:
        return memory.batches.put(_begun(request)) if request.method == "POST" else _listed(memory.batches)
    batch_id, _, act = name.partition("/")
    found = memory.batches.get(batch_id)
    if found is None:
        raise Refused(f"No batch found with id '{batch_id}'.", 404)
    if act == "cancel":
        return memory.batches.put({**found, "status": "cancelling", "cancelling_at": CREATED_AT})
    if found["status"] != "validating":
        return found
    counts = {"total": 1, "completed": 1, "failed": 0}
    done = {"status": "completed", "completed_at": CREATED_AT, "output_file_id": f"file-{batch_id}"}
    return memory.batches.put({**found, **done, "request_counts": counts})


def _uploaded(request: Request) -> dict[str, Any]:
    form = request.form
    if form is None or form.problem is not None or not form.files:
        raise Refused("'file' is a required property: send multipart/form-data with a file.", 400, "file")
    (file, *_), purpose = form.files, form.fields.get("purpose", ["user_data"])[0]
    return {
        "id": f"file-{file.sha256[:_ID_CHARS]}",
        "object": "file",
        "bytes": file.size,
        "created_at": CREATED_AT,
        "expires_at": None,
        "filename": file.filename,
        "purpose": purpose,
        "status": "processed",
        "sha256": file.sha256,
    }


def _begun(request: Request) -> dict[str, Any]:
    try:
        asked = orjson.loads(request.body)
    except orjson.JSONDecodeError as problem:
        raise Refused(f"We could not parse the JSON body of your request: {problem}.") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("input_file_id"), str):
        raise Refused("you must provide an input_file_id parameter", param="input_file_id")
    return {
        "id": f"batch_{request.body_sha256[:_ID_CHARS]}",
        "object": "batch",
        "endpoint": asked.get("endpoint"),
        "errors": None,
        "input_file_id": asked["input_file_id"],
        "completion_window": asked.get("completion_window", "24h"),
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": CREATED_AT,
        "expires_at": CREATED_AT + _WINDOW_S,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": asked.get("metadata"),
    }


def _listed(shelf: Shelf) -> dict[str, Any]:
    found = shelf.newest_first()
    ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {"first_id": None, "last_id": None}
    return {"object": "list", "data": found, **ends, "has_more": False}
