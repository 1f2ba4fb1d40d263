"""The two files of a batch, in OpenAI's form: requests come from one, answers go to the other, a line each.

    {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "simple", "messages": [...]}}
    {"id": "batch_req_...", "custom_id": "1", "response": {"status_code": 200, "request_id": "...", "body": {...}},
     "error": null}

An answer is appended by one write, so that a process that dies leaves at most one torn line, the last; the next run heals
it. Rows that failed are taken out by the next run, which asks again, so that a `custom_id` never stands there twice: the
file is written anew beside the old one, and takes its name when it is whole.

Source: platform.openai.com/docs/guides/batch, read 2026-11-21. Held by `tests/cli/test_batch_command.py`.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.cli import request_file
from proxy.cli.request_file import BadFile
from proxy.edge import warm_request
from proxy.edge.warm_request import WarmRequest

ID_CHARS_MAX: Final = 512
_BEGINS: Final = b'{"id":"batch_req_'  # every line of ours: what else ends without a newline is not ours to cut


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the input."""

    custom_id: str
    request: WarmRequest


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it came. Shapes: ``body`` is JSON, or else a text or base64 in an object."""

    status: int
    request_id: str | None
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Broken:
    """Why there is no answer."""

    code: str
    message: str


def refuse_same(source: Path, out: Path) -> None:
    """Raises `BadFile` where answers would go among the requests."""
    if out.exists() and out.samefile(source):
        raise BadFile(f"{out} is the file of the requests. Name another for the answers.")


def identifiers(file: Path) -> set[str]:
    """The `custom_id` of every line of the input. Raises `BadFile` with what is wrong with it, before anything is sent."""
    seen: set[str] = set()

    def once(value: Any) -> Asked | str:
        found = _asked(value)
        if isinstance(found, str):
            return found
        if found.custom_id in seen:
            return f"custom_id {found.custom_id!r} is there already"
        seen.add(found.custom_id)
        return found

    request_file.count(file, once)
    return seen


def requests(file: Path) -> Iterator[Asked]:
    """The requests of a file that `identifiers` has read, in order."""
    return (asked for _, asked in request_file.requests(file, _asked))


def _asked(value: Any) -> Asked | str:
    if not isinstance(value, dict) or not {"custom_id", "url", "body"} <= value.keys():
        return 'expected {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}'
    custom_id = value["custom_id"]
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= ID_CHARS_MAX:
        return f"'custom_id' must be a text of 1 to {ID_CHARS_MAX} characters"
    request = warm_request.read(value)
    if isinstance(request, str):
        return request
    if value["body"].get("stream"):
        return "'stream' must not be set in 'body': an answer goes to the file as one JSON value"
    return Asked(custom_id, request)


class OutFile:
    """The answers' file, held by one process. `close` it. Concurrency: used by one task at a time.

    ``done``: the `custom_id` of every row of it that has a good answer.
    """

    def __init__(self, path: Path) -> None:
        """Heal what a process that died has left, and take out the rows that failed. Raises `BadFile`, OSError."""
        self._path = path
        self._descriptors = [_held(path)]
        try:
            good, bad, end = _surveyed(path)
            self.done = good
            if bad:
                self._rewrite(good)
            else:
                os.ftruncate(self._descriptors[-1], end)
                self._end_last_line()
        except BaseException:
            self.close()
            raise

    def write(self, asked: Asked, outcome: Response | Broken) -> None:
        """Append one row. Raises OSError, and then the row is not there, or torn."""
        _append(self._descriptors[-1], row(asked.custom_id, outcome))

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _end_last_line(self) -> None:
        """An editor may have taken the last newline."""
        descriptor = self._descriptors[-1]
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            _append(descriptor, b"\n")

    def _rewrite(self, good: set[str]) -> None:
        """The file without what failed. The new one is locked before it takes the name, and the old one stays so."""
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = _held(draft)
        self._descriptors.append(descriptor)
        try:
            with self._path.open("rb") as old:
                for line in old:
                    found = _row(line)
                    if found is not None and found[1] and found[0] in good:
                        _append(descriptor, line if line.endswith(b"\n") else line + b"\n")
            os.fsync(descriptor)
            draft.replace(self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def row(custom_id: str, outcome: Response | Broken) -> bytes:
    """A line of the output."""
    told: dict[str, Any] = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id}
    match outcome:
        case Response():
            # In JSON line ends stand between values alone, where a blank does as well.
            body = orjson.Fragment(outcome.body.replace(b"\n", b" ").replace(b"\r", b" "))
            response = {"status_code": outcome.status, "request_id": outcome.request_id, "body": body}
            told |= {"response": response, "error": None}
        case Broken():
            told |= {"response": None, "error": {"code": outcome.code, "message": outcome.message}}
    return orjson.dumps(told) + b"\n"


def _held(path: Path) -> int:
    """A descriptor that holds the file's lock. Raises `BadFile` where another process does, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)  # answers are private
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever runs may have put a new file in its place in between.
        held = path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
    except BlockingIOError:
        held = False
    if not held:
        os.close(descriptor)
        raise BadFile(f"{path} is written by another `penstock batch` that runs. Wait for it, or name another.")
    return descriptor


def _surveyed(path: Path) -> tuple[set[str], bool, int]:
    """Which ids have a good answer, whether rows must go, and where the last whole row ends. Raises `BadFile`."""
    good: set[str] = set()
    some_failed = False
    end = 0
    with path.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            found = _row(line)
            if found is None and not line.endswith(b"\n") and _is_torn(line):
                return good, some_failed, end
            if found is None:
                raise BadFile(
                    f"{path}:{number}: not a row of a batch's answers, so nothing is written there. Name another."
                )
            custom_id, is_good = found
            some_failed = some_failed or not is_good
            if is_good:
                good.add(custom_id)
            end += len(line)
    return good, some_failed, end


def _is_torn(line: bytes) -> bool:
    return line.startswith(_BEGINS) or _BEGINS.startswith(line)


def _row(line: bytes) -> tuple[str, bool] | None:
    """A row's `custom_id`, and whether it has a good answer; None where it is no row."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str) or "response" not in value:
        return None
    response = value["response"]
    status = response.get("status_code") if isinstance(response, dict) else None
    return value["custom_id"], isinstance(status, int) and 200 <= status < 300


def _append(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written < len(data):  # the disk is full, mostly; then the next write says so
        _append(descriptor, data[written:])
