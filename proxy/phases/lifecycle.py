"""The life of an exchange: eight phases, called in order. Start reading here.

identify - accept - plan - attempt - relay - settle. (Admission and recall have no engine yet.) Each phase either goes on,
or ends the exchange by `Rejected`, before anything was sent. `settle` runs for every exchange, refused ones too, once.
"""

import asyncio

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.phases.accept import accept
from proxy.phases.attempt import attempt
from proxy.phases.exchange import Exchange
from proxy.phases.identify import identify
from proxy.phases.plan import plan
from proxy.phases.refuse import refuse
from proxy.phases.relay import Relay
from proxy.phases.runtime import Runtime
from proxy.phases.settle import settle
from proxy.phases.watchdog import Watchdog
from proxy.ports import ClientGone, Downstream
from proxy.terms import Commitment


async def run(x: Exchange, runtime: Runtime, downstream: Downstream) -> None:
    """Carry one exchange from its head to its settlement. Raises only `CancelledError`, when the client has left."""
    try:
        await _live(x, runtime, downstream)
    except ClientGone:
        _client_left(x)
    except asyncio.CancelledError:
        _client_left(x)
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a bug ends, and is told
        await _bug(x, runtime, downstream, error)
    finally:
        settle(x, runtime)


async def _live(x: Exchange, runtime: Runtime, downstream: Downstream) -> None:
    watchdog: Watchdog | None = None
    try:
        identify(x)
        await accept(x, downstream)
        way = plan(x, runtime)
        watchdog = runtime.ticker.watch(way.timeouts, x.total_at)
        opening = await attempt(x, runtime, way, watchdog)
        await Relay(x, runtime, opening, downstream, watchdog).run()
        if x.outlives and downstream.gone and x.failure is None:
            _client_left(x)
    except Rejected as rejected:
        if watchdog is not None:
            runtime.ticker.release(watchdog)
        await refuse(x, rejected.failure, downstream)
    finally:
        if watchdog is not None:
            runtime.ticker.release(watchdog)


def _client_left(x: Exchange) -> None:
    x.failure = Failure(FailureKind.CLIENT_GONE, "The client closed the connection before the answer was over.")
    x.status = x.failure.status


async def _bug(x: Exchange, runtime: Runtime, downstream: Downstream, error: Exception) -> None:
    runtime.log.bug(x.id, error)
    failure = Failure(FailureKind.INTERNAL, f"Penstock failed on this request; the log has more under the id {x.id}.")
    x.failure, x.status = failure, failure.status
    if x.commitment in (Commitment.UNCOMMITTED, Commitment.HEAD):
        try:
            await refuse(x, failure, downstream)
        except ClientGone:
            _client_left(x)
    else:
        x.commitment = Commitment.BROKEN
        downstream.break_off()
