"""What is left when nothing runs any more: of leases, of what budgets hold, of exchanges; it must be nothing."""

import asyncio
import time
from typing import Any

from tests.soak.served import LEFT_S, Served
from tests.valkey import Valkey


async def nothing_is_left(server: Served, valkey: Valkey) -> None:
    """Waits until it is so. Errors: AssertionError with what is left after `LEFT_S`."""
    until = time.monotonic() + LEFT_S
    while left := {**leases(valkey), **await _held(server)}:
        assert time.monotonic() < until, f"left over: {left}"
        await asyncio.sleep(0.5)


async def _held(server: Served) -> dict[str, Any]:
    budgets = (await server.admin("/admin/budgets"))["budgets"]
    limits = (await server.admin("/admin/limits"))["limits"]
    held = {f"held of {one['subject']} {one['period']}": one["held_nanousd"] for one in budgets}
    under_way = {f"slots of {one['subject']}": one["under_way"] for one in limits}
    return {name: count for name, count in {**held, **under_way}.items() if count}


def leases(valkey: Valkey) -> dict[str, int]:
    """By the sorted set that they are in: slots of limits, and reservations of budgets. Who works is no lease."""
    found: dict[str, int] = {}
    for key in valkey.command("KEYS", "*|leases"):
        if count := valkey.command("ZCARD", key):
            found[key] = count
    return found
