"""How a command asks a running server what clients ask: one session, and one failure that stands for all."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import aiohttp

from proxy.cli.admin_client import NoAnswer

_Result = TypeVar("_Result")


def shown(key: str | None, account: str | None = None) -> dict[str, str]:
    """The headers that say who asks. Raises `NoAnswer` for what no header can carry."""
    for what, value in (("key", key), ("account", account)):
        if value is not None and not (value.isascii() and value.isprintable()):
            raise NoAnswer(f"the {what} holds a character that no header can carry.")
    said = {"authorization": f"Bearer {key}"} if key else {}
    return said if account is None else said | {"x-penstock-account": account}


def session(headers: Mapping[str, str], silence_s: float, at_once: int) -> aiohttp.ClientSession:
    """``silence_s``: how long an answer may be silent. ``at_once``: how many requests run. In the event loop."""
    return aiohttp.ClientSession(
        headers={"content-type": "application/json", "user-agent": "penstock-cli", **headers},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence_s),
        connector=aiohttp.TCPConnector(limit=at_once),
        trust_env=False,
    )


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """In an event loop of its own. Of what a group of tasks raises, the first."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
