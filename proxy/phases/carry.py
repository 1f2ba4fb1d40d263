"""An answer from a provider to an outlet: attempt and relay, under one watchdog."""

from proxy.core.routing import Plan
from proxy.phases.attempt import attempt
from proxy.phases.exchange import Exchange
from proxy.phases.relay import Relay
from proxy.phases.runtime import Runtime
from proxy.ports import Outlet


async def carry(x: Exchange, runtime: Runtime, plan: Plan, outlet: Outlet) -> None:
    """Raises `Rejected` where no target answers, `ClientGone`, and `CancelledError` when the client has left."""
    watchdog = runtime.ticker.watch(plan.timeouts, x.total_at)
    try:
        opening = await attempt(x, runtime, plan, watchdog)
        await Relay(x, runtime, opening, outlet, watchdog).run()
    finally:
        runtime.ticker.release(watchdog)
