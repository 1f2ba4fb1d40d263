"""A serving process with a budget and short leases, for tests that kill it.

`python -m tests.money.process CONFIG CAP LEASE_S` serves as `penstock serve` does, with the environment that it reads; what
a file cannot say is added to its table. It prints its port.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from proxy.config.resolve import load
from proxy.phases.budgets import Budgets
from proxy.ports import BudgetStore
from proxy.server import build
from proxy.server.outbox import Outbox
from proxy.server.serve import Options, Service, serve
from proxy.server.settings import Settings
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.redis.budgets import RedisBudgets
from proxy.stores.redis.connection import RedisConnection
from tests.money.stage import budget


def short_leases(lease_s: float, put: Callable[[object, str, object], None] = setattr) -> None:
    """Leases as short as this, and heirs that look for the dead more often; ``put`` replaces a name of a module."""
    lease_ms = int(lease_s * 1000)

    def store(redis: RedisConnection | None) -> BudgetStore:
        if redis is None:
            return MemoryBudgets(lambda: int(time.time() * 1000), lease_ms=lease_ms)
        return RedisBudgets(redis, lease_ms=lease_ms)

    replaced: dict[str, object] = {
        "_redis": partial(RedisConnection, deadline_s=5.0),  # what a slow store does is no subject here
        "_budget_store": store,
        "Budgets": partial(Budgets, lease_s=lease_s),
        "Outbox": partial(Outbox, batch_s=0.02, scan_s=0.1),
    }
    for name, value in replaced.items():
        put(build, name, value)


def main() -> None:
    config, cap, lease_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    short_leases(lease_s)
    table = budget(cap)(load(config, os.environ))
    service = Service(
        Options(config, port=0),
        Settings.of(os.environ),
        table,
        build.build_log(),
        lambda _, url: print(f"serves on {url}", flush=True),
    )
    if sys.platform == "win32":
        asyncio.run(serve(service))
    else:
        uvloop.run(serve(service))


if __name__ == "__main__":
    main()
