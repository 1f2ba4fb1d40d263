"""Files of requests, a JSON value a line, as `penstock batch` and `penstock cache warm` read them.

A file is read twice: first whole, so that nothing is sent of one with a bad line, then line by line as it is sent.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from proxy.cli.admin_client import printable

LINE_BYTES_MAX: Final = 32 * 1024 * 1024  # as large as a request may be
PROBLEMS_TOLD_MAX: Final = 10
_BOM: Final = b"\xef\xbb\xbf"

_Request = TypeVar("_Request")
_Read = Callable[[Any], _Request | str]  # the request that a JSON value is, or in words why it is none


class BadFile(Exception):  # noqa: N818 - a message for whoever ran the command
    """A file is not what it should be. The message has a line for each of the first problems."""


def count(file: Path, read: _Read[_Request]) -> int:
    """How many requests a file holds. Raises `BadFile` with what is wrong with it."""
    if not file.is_file():
        raise BadFile(f"{file} is no regular file, and it is read twice.")
    good = bad = 0
    problems: list[str] = []
    for number, found in _lines(file, read):
        if not isinstance(found, str):
            good += 1
            continue
        bad += 1
        if bad <= PROBLEMS_TOLD_MAX:
            problems.append(f"{file}:{number}: {printable(found)}")
    if bad:
        more = [f"and {bad - PROBLEMS_TOLD_MAX} more"] if bad > PROBLEMS_TOLD_MAX else []
        head = "nothing was sent, because the file has lines that are no requests:"
        raise BadFile("\n".join((head, *problems, *more)))
    if not good:
        raise BadFile(f"{file} holds no requests.")
    return good


def requests(file: Path, read: _Read[_Request]) -> Iterator[tuple[int, _Request]]:
    """The requests of a file that was counted, in order, each with the number of its line."""
    for number, found in _lines(file, read):
        if not isinstance(found, str):
            yield number, found


def _lines(file: Path, read: _Read[_Request]) -> Iterator[tuple[int, _Request | str]]:
    """Blank lines are passed over."""
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                yield number, f"longer than {LINE_BYTES_MAX // 1024 // 1024} MiB; what follows was not read"
                return
            line = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
            if not line:
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, f"no JSON: {error}"
            else:
                yield number, read(value)
