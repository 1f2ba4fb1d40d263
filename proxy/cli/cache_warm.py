"""How `penstock cache warm` asks: the lines of a file, sent to the server by a client like any other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from proxy.cli import client, request_file
from proxy.cli.admin_client import Address, code_of, message_of, printable, unreached
from proxy.edge import warm_request
from proxy.edge.warm_request import WarmRequest
from proxy.edge.warm_up import Answered, Tally, warm_up

SILENCE_S: Final = 900.0  # an answer that comes in one piece is silent until it is there
_ERROR_BYTES_MAX: Final = 64 * 1024


def count(file: Path) -> int:
    """How many requests a file holds. Raises `BadFile`."""
    return request_file.count(file, warm_request.read)


def run(file: Path, where: Address, shown: Mapping[str, str], concurrency: int, advance: Callable[[], None]) -> Tally:
    """Send a file that was counted. ``shown``: headers that say who asks. Raises `NoAnswer` where nobody is there."""
    return client.run(_run(file, where, shown, concurrency, advance))


async def _run(
    file: Path, where: Address, shown: Mapping[str, str], concurrency: int, advance: Callable[[], None]
) -> Tally:
    async with client.session(shown, SILENCE_S, concurrency) as session:
        return await warm_up(
            request_file.requests(file, warm_request.read),
            lambda request: _sent(session, where, request),
            concurrency=concurrency,
            advance=advance,
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
    told, code = message_of(document) or "the answer is no error of Penstock", code_of(document)
    return Answered(answer.status, cache, told, code if isinstance(code, str) else None)
