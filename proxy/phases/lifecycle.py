"""The life of an exchange: eight phases, called in order. Start reading here.

identify - accept - admit - plan - recall - attempt - relay - settle. Each phase either goes on, or
ends the exchange by `Rejected`, before anything was sent. `settle` runs for every exchange, refused ones too, once: here, or
by the task of a shared call (`flight`) for the exchange that leads it.
"""

import asyncio

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.phases.accept import accept
from proxy.phases.admit import admit
from proxy.phases.carry import carry
from proxy.phases.door import challenges
from proxy.phases.exchange import Exchange
from proxy.phases.identify import identify
from proxy.phases.plan import plan
from proxy.phases.recall import recall
from proxy.phases.refuse import refuse
from proxy.phases.runtime import Runtime
from proxy.phases.settle import settle
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
        if not x.is_recorded:
            settle(x, runtime)


async def _live(x: Exchange, runtime: Runtime, downstream: Downstream) -> None:
    try:
        identify(x, runtime, downstream)
        await accept(x, downstream)
        await admit(x, runtime)
        way = plan(x, runtime)
        if way.cache is None or not await recall(x, runtime, way, way.cache, downstream):
            await carry(x, runtime, way, downstream)
        if x.outlives and downstream.gone and x.failure is None and not x.is_recorded:
            _client_left(x)
    except Rejected as rejected:
        await refuse(x, rejected.failure, downstream, challenges(rejected.failure))


def _client_left(x: Exchange) -> None:
    if x.is_recorded:
        return  # its flight knows, and may go on for others
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
