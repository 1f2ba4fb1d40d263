"""What the metrics tell of how the process stands: looked at when somebody asks, and kept nowhere."""

from collections.abc import Iterator
from typing import Final

from proxy.core.breaker import State, credential_subject, target_subject
from proxy.core.routing import RoutingTable, configured
from proxy.core.store_mode import TABLE, Function, Mode
from proxy.edge.health import Outlook
from proxy.phases.runtime import Runtime
from proxy.telemetry.metrics import (
    BREAKER_OPEN,
    BUDGET_LEFT,
    OTHER,
    OUTBOX_ROWS,
    RUNNING,
    STORE_MODE,
    STORE_UP,
    Labels,
    Snapshot,
)

BOOKS_MAX: Final = 1000  # budgets that are told of; whoever has more asks /admin/budgets

_Series = dict[Labels, tuple[float, ...]]


async def gauges(runtime: Runtime, outlook: Outlook, running: int) -> Snapshot:
    """At most one store call, for the budgets. ``running``: exchanges under way."""
    now = runtime.wall()
    lefts = await runtime.budgets.left(runtime.table.budgets.payers(), now, BOOKS_MAX)
    stores: _Series = {(name,): (float(state.up),) for name, state in outlook.stores().items()}
    modes = {function: one.mode for function, one in outlook.modes().items()}
    taken: Snapshot = {
        BREAKER_OPEN.name: _breakers(runtime, now),
        BUDGET_LEFT.name: {(subject, period): (left / 1e9,) for subject, period, left in lefts},
        STORE_UP.name: stores,
        STORE_MODE.name: {
            (function.value, one.value): (float(one is mode),)
            for function, mode in modes.items()
            for one in TABLE[function].modes
        },
        RUNNING.name: {(): (float(running),)},
    }
    if outlook.books is not None:
        books = outlook.books()
        stores["ledger",] = (float(books.away_s is None and modes.get(Function.LEDGER) is not Mode.SPOOL),)
        taken[OUTBOX_ROWS.name] = {(): (float(books.waiting_rows),)}
    return taken


def _breakers(runtime: Runtime, now: float) -> _Series:
    """Clients can name targets: those that the configuration does not, stand together."""
    known = set(_subjects(runtime))
    series: _Series = {}
    for view in runtime.breakers.snapshot(now):
        labels = (view.subject if view.subject in known else OTHER,)
        (was,) = series.get(labels, (0.0,))
        series[labels] = (max(was, float(view.state is State.OPEN)),)
    return series


def _subjects(runtime: Runtime) -> Iterator[str]:
    tables: tuple[RoutingTable, ...] = (runtime.table, *runtime.table.views.values())
    for table in tables:
        for provider in table.providers.values():
            yield from (credential_subject(provider.id, credential.value) for credential in provider.credentials)
        yield from (target_subject(target.name) for target in configured(table))
