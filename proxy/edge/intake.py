"""What the process takes in now: plain attributes that the server sets and the surface reads for every request.

``unready``: readiness fails, while requests are still served. ``closing`` and ``crowded`` (no connection
is free): an answer is its connection's last one.
``refusing``: new requests get 503 `shutting_down`. ``overload``: why new requests get 503 `overloaded`, in words; None
where they may come.
"""

from dataclasses import dataclass
from typing import Final

from proxy.core.failure import Failure, FailureKind

EXCHANGES_MAX: Final = 10_000  # at once in one process: at 20 KiB each they hold 200 MiB, and one core cannot feed more
AGAIN_S: Final = 2.0
_STOPS: Final = "Penstock is shutting down; send the request again."


@dataclass(slots=True)
class Intake:
    """One per process. Concurrency: set and read in one loop."""

    unready: bool = False
    closing: bool = False
    crowded: bool = False
    refusing: bool = False
    overload: str | None = None
    exchanges_max: int = EXCHANGES_MAX

    @property
    def is_last(self) -> bool:
        """Whether an answer that begins now is its connection's last."""
        return self.closing or self.crowded

    def refusal(self, running: int) -> Failure | None:
        """Why a request that comes now is refused; None where it may come. ``running``: exchanges under way.

        Where nothing runs an overload refuses nobody: it would not pass by waiting, and nothing would be served again.
        """
        if self.refusing:
            return Failure(FailureKind.SHUTTING_DOWN, _STOPS)
        if self.overload is not None and running:
            return _overloaded(self.overload)
        if running >= self.exchanges_max:
            return _overloaded(f"{running} requests are under way, which is the bound")
        return None


def _overloaded(why: str) -> Failure:
    message = f"Penstock takes no new requests now: {why}. Send the request again in a moment."
    return Failure(FailureKind.OVERLOADED_HERE, message, retry_after_s=AGAIN_S)
