"""How endpoints wait for the ledger and the audit log: for so long, and with a message where they cannot be read."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.ports import StoreAway, StoreUnusable

ANSWER_S: Final = 9.0  # a command gives up after ten, and would not be told why
AGAIN_S: Final = 5.0
_MEANWHILE: Final = {"ledger": " Requests go on, and their rows wait on disk."}

_Result = TypeVar("_Result")


async def answered(reading: Awaitable[_Result], store: str = "ledger") -> _Result:
    """What the store says. Raises `Rejected`, STORE_UNAVAILABLE, with a time to wait where waiting helps."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await reading
    except StoreAway as away:
        raise _unavailable(store, f"{_sentence(away)}{_MEANWHILE.get(store, '')}", AGAIN_S) from None
    except StoreUnusable as unusable:
        raise _unavailable(store, _sentence(unusable), None) from None
    except TimeoutError:
        why = f"no answer within {ANSWER_S:.0f} s. Ask for less: fewer days, or a span with 'since' and 'until'."
        raise _unavailable(store, why, AGAIN_S) from None


def _unavailable(store: str, why: str, again_s: float | None) -> Rejected:
    message = f"The {store} cannot be read now: {why}"
    return Rejected(Failure(FailureKind.STORE_UNAVAILABLE, message, retry_after_s=again_s))


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
