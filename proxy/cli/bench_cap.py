"""The spending cap of `penstock bench`: what a request may cost at most is held before it is sent. Pure but for the wait.

The most that a request may cost is what Penstock's own reservations would be, by the routes file and the price list here, at
all targets that its name stands for, since each of them may be asked; a cent where that is not known; and never less than
the dearest answer that the name has had in this run. So the cap holds where the server has the same routes file; where it
has another one, it may be passed by what the first answers cost more than that.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.core.afford import Afforded, afford
from proxy.core.cost import CEILING_DEFAULT, bounds
from proxy.core.failure import Failure
from proxy.core.prompt import measure
from proxy.core.routing import RoutingTable, plan
from proxy.terms import Api


@dataclass(slots=True)
class SpendingCap:
    """Units: nano-USD. Concurrency: of one event loop; made within it."""

    limit_nanousd: int
    spent_nanousd: int = 0
    held_nanousd: int = 0
    _dearest: dict[str, int] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def hold(self, name: str, worst_nanousd: int) -> int | None:
        """What is held now for a request; waits for those under way. None: it could pass the cap, whatever they cost."""
        async with self._changed:
            while True:
                worst = max(worst_nanousd, self._dearest.get(name, 0))
                if self.spent_nanousd + self.held_nanousd + worst <= self.limit_nanousd:
                    self.held_nanousd += worst
                    return worst
                if not self.held_nanousd:
                    return None
                await self._changed.wait()

    async def settle(self, name: str, held_nanousd: int, cost_nanousd: int) -> None:
        async with self._changed:
            self.held_nanousd -= held_nanousd
            self.spent_nanousd += cost_nanousd
            self._dearest[name] = max(self._dearest.get(name, 0), cost_nanousd)
            self._changed.notify_all()


def worst_case(table: RoutingTable, name: str, body: Mapping[str, Any], output_cap: int) -> int:
    """What a chat request may cost at most by a table. Units: nano-USD."""
    planned = plan(table, name, Api.CHAT)
    if isinstance(planned, Failure):
        return CEILING_DEFAULT
    choices = body.get("n")
    found = [
        afford(
            table.pricing.terms(planned.route, target.provider.id, target.model),
            bounds(measure(len(orjson.dumps(body)), body)),
            int(time.time()),
            output_cap=output_cap,
            choices=choices if type(choices) is int and choices > 0 else 1,
        )
        for target in planned.targets
    ]
    afforded = [one.hold_nanousd for one in found if isinstance(one, Afforded)]
    return sum(afforded) if afforded else CEILING_DEFAULT  # a target that is skipped for what it costs costs nothing
