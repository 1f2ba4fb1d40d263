"""How `penstock cache warm` asks: the lines of a file, sent to the server by a client like any other.

The file is read twice: first whole, so that nothing is sent of one with a bad line, then line by line as it is sent.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from proxy.cli.admin_client import Address, NoAnswer, message_of, printable, unreached
from proxy.edge import warm_request
from proxy.edge.warm_request import WarmRequest
from proxy.edge.warm_up import Answered, Tally, warm_up

LINE_BYTES_MAX: Final = 32 * 1024 * 1024  # as large as a request may be
PROBLEMS_TOLD_MAX: Final = 10
SILENCE_S: Final = 900.0  # an answer that comes in one piece is silent until it is there
_ERROR_BYTES_MAX: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class BadFile(Exception):  # noqa: N818 - a message for whoever ran the command
    """The file holds what cannot be sent, or nothing. The message has a line for each of the first problems."""


def count(file: Path) -> int:
    """How many requests a file holds. Raises `BadFile`."""
    if not file.is_file():
        raise BadFile(f"{file} is no regular file, and it is read twice.")
    requests = bad = 0
    problems: list[str] = []
    for number, found in _lines(file):
        if isinstance(found, WarmRequest):
            requests += 1
            continue
        bad += 1
        if bad <= PROBLEMS_TOLD_MAX:
            problems.append(f"{file}:{number}: {printable(found)}")
    if bad:
        more = [f"and {bad - PROBLEMS_TOLD_MAX} more"] if bad > PROBLEMS_TOLD_MAX else []
        raise BadFile(
            "\n".join(("nothing was sent, because the file has lines that are no requests:", *problems, *more))
        )
    if not requests:
        raise BadFile(f"{file} holds no requests.")
    return requests


def _lines(file: Path) -> Iterator[tuple[int, WarmRequest | str]]:
    """Each line's number and request, or why it is none. Blank lines are passed over."""
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                yield number, f"longer than {LINE_BYTES_MAX // 1024 // 1024} MiB; what follows was not read"
                return
            line = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
            if line:
                yield number, _read(line)


def _read(line: bytes) -> WarmRequest | str:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"no JSON: {error}"
    return warm_request.read(value)


def run(file: Path, where: Address, shown: Mapping[str, str], concurrency: int, advance: Callable[[], None]) -> Tally:
    """Send a file that was counted. ``shown``: headers that say who asks. Raises `NoAnswer` where nobody is there."""
    if not all(value.isascii() and value.isprintable() for value in shown.values()):
        raise NoAnswer("the key or the account holds a character that no header can carry.")
    try:
        return asyncio.run(_run(file, where, shown, concurrency, advance))
    except BaseExceptionGroup as group:
        reached = group.subgroup(NoAnswer)
        if reached is None:
            raise
        raise _first(reached) from None


def _first(group: BaseExceptionGroup[NoAnswer]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(
    file: Path, where: Address, shown: Mapping[str, str], concurrency: int, advance: Callable[[], None]
) -> Tally:
    headers = {"content-type": "application/json", "user-agent": "penstock-cli", **shown}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=SILENCE_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=False) as session:
        requests = ((number, one) for number, one in _lines(file) if isinstance(one, WarmRequest))
        return await warm_up(
            requests, lambda request: _sent(session, where, request), concurrency=concurrency, advance=advance
        )


async def _sent(session: aiohttp.ClientSession, where: Address, request: WarmRequest) -> Answered:
    """Raises `NoAnswer` where no connection comes about: the others would fare alike."""
    try:
        async with session.post(f"{where}{request.path}", data=request.body, allow_redirects=False) as answer:
            begun = bytearray()
            async for chunk in answer.content.iter_any():
                begun += chunk[: _ERROR_BYTES_MAX - len(begun)]
            return _answered(answer, bytes(begun), where)
    except aiohttp.ClientConnectorError as error:
        raise unreached(where, error.os_error) from None
    except TimeoutError:
        return Answered(None, failed=f"no answer within {SILENCE_S:.0f} s")
    except aiohttp.ClientError as error:
        return Answered(None, failed=f"the answer broke off: {printable(str(error) or type(error).__name__)}")


def _answered(answer: aiohttp.ClientResponse, body: bytes, where: Address) -> Answered:
    cache = answer.headers.get("x-penstock-cache")
    if 200 <= answer.status < 300:
        strange = None if cache is not None else f"what answers at {where} is not Penstock"
        return Answered(answer.status, cache, strange)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    told = message_of(document)
    code = document["error"].get("code") if told else None
    return Answered(
        answer.status, cache, told or "the answer is no error of Penstock", code if isinstance(code, str) else None
    )
