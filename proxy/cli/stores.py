"""How commands use a store themselves, beside a server that may be running."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from proxy.cli.options import EXIT_INTERRUPTED, fail


class _Store(Protocol):
    async def close(self) -> None: ...


_Opened = TypeVar("_Opened", bound=_Store)
_Result = TypeVar("_Result")


def using(opened: Callable[[], _Opened], work: Callable[[_Opened], Awaitable[_Result]]) -> _Result:
    """What comes of some work with a store. Errors: as `guarded`."""

    async def done() -> _Result:
        store = opened()
        try:
            return await work(store)
        finally:
            await store.close()

    return guarded(lambda: asyncio.run(done()))


def guarded(work: Callable[[], _Result]) -> _Result:
    """Errors: ends the command with exit code 1 where the store, or a secret of the proxy's own, cannot be had."""
    from proxy.ports import StoreAway, StoreUnusable  # noqa: PLC0415 - not for --help
    from proxy.server.own_secrets import SecretRefused, SecretUnavailable  # noqa: PLC0415

    try:
        return work()
    except (StoreAway, StoreUnusable, SecretRefused, SecretUnavailable) as problem:
        fail(problem)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
