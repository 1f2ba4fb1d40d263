"""Giving an answer that this exchange has not asked a provider for: its own headers, its cost, and how it is cut short."""

from typing import Final
from urllib.parse import quote

from proxy.core import error_body
from proxy.core.dialect import DIALECTS
from proxy.core.failure import Failure, FailureKind
from proxy.phases.admit import limit_headers
from proxy.phases.exchange import Exchange
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Downstream
from proxy.terms import Commitment

_SHOWN_AS_THEY_ARE: Final = "".join(chr(code) for code in range(0x21, 0x7F))
_BLANK_LINES: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


def own_headers(x: Exchange, runtime: Runtime, provider: str, model: str) -> list[tuple[str, str]]:
    """Penstock's own headers of an answer that this exchange did not ask a provider for."""
    own = [
        ("server", "penstock"),
        ("x-request-id", x.id),
        ("x-penstock-provider", provider),
        ("x-penstock-model", model if model.isascii() else quote(model, safe=_SHOWN_AS_THEY_ARE)),
        ("x-penstock-attempts", "0"),
        ("x-penstock-cache", x.cache),
        ("x-penstock-overhead-ms", f"{(runtime.now() - x.started) * 1000:.2f}"),
    ]
    if x.plan is not None and x.plan.route is not None:
        own.append(("x-penstock-route", x.plan.route))
    return own if x.limits is None else own + limit_headers(x)


def out_of_time(kind: FailureKind) -> Failure:
    """Why the exchange's watchdog ended it while it waited for, or gave, an answer of somebody else's."""
    match kind:
        case FailureKind.SHUTTING_DOWN:
            return Failure(kind, "Penstock is shutting down; send the request again.")
        case FailureKind.CLIENT_STALLED:
            return Failure(kind, "The client took no bytes for too long.")
        case _:
            return Failure(kind, "The shared answer took longer than this request may take.")


async def cut_short(
    x: Exchange,
    runtime: Runtime,
    failure: Failure,
    downstream: Downstream,
    watchdog: Watchdog,
    *,
    last: bytes,
    events: int,
) -> None:
    """End an answer that had begun before its time. Raises `ClientGone`.

    ``last``: what was written last, so that an event of ours may follow it or not; ``events``: how many came before.
    """
    if failure.kind is FailureKind.CLIENT_STALLED or not x.streamed:
        downstream.abort()
        return
    if x.api in DIALECTS and last.endswith(_BLANK_LINES):
        watchdog.writing_since = runtime.now()
        await downstream.write(error_body.event(failure, x.api, events))
    downstream.break_off()


def is_broken(x: Exchange, failure: Failure) -> None:
    """The exchange's own end, where its answer was cut short."""
    x.failure, x.commitment = failure, Commitment.BROKEN
