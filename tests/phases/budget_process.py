"""A worker's budgets in a process of its own, for tests that kill it: `python -m tests.phases.budget_process URL MODE ...`.

`hold N AMOUNT`: reserves N exchanges, prints how many were admitted, and keeps them until it is killed.
`spend SECONDS`: exchanges one after the other in 20 tasks, each settled with at most what it held; prints what it spent.
"""

import asyncio
import os
import random
import sys
import time

import uvloop

from proxy.phases.budgets import Hold
from proxy.stores.redis.budgets import RedisBudgets
from proxy.stores.redis.connection import RedisConnection
from tests.phases.budget_stage import Worker, payer

CAP = 1_000_000
LEASE_S = 0.6


def worker_at(url: str, name: str) -> tuple[Worker, RedisConnection]:
    """The deadline is not what these tests are about."""
    connection = RedisConnection(url, deadline_s=2.0)
    store = RedisBudgets(connection, lease_ms=int(LEASE_S * 1000))
    return Worker(store, (payer(daily=CAP, monthly=CAP * 2),), name=name, lease_s=LEASE_S), connection


async def hold(worker: Worker, count: int, amount: int) -> None:
    answers = await asyncio.gather(*(worker.reserve(f"{worker.name} {number}", amount) for number in range(count)))
    print(sum(isinstance(answer, Hold) for answer in answers), flush=True)
    await asyncio.sleep(60)


async def spend(worker: Worker, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    rng = random.Random(worker.name)
    spent = 0

    async def client(number: int) -> None:
        nonlocal spent
        exchange = 0
        while time.monotonic() < ends_at:
            exchange += 1
            amount = rng.randrange(1000, 20_000)
            answer = await worker.reserve(f"{worker.name} {number} {exchange}", amount)
            if isinstance(answer, Hold):
                await asyncio.sleep(rng.random() * 0.02)
                actual = rng.randrange(amount // 4 + 1)
                worker.budgets.settle(answer, actual)
                spent += actual
            else:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client(number) for number in range(20)))
    await worker.budgets.close()
    print(spent, flush=True)


async def main(url: str, mode: str, *numbers: str) -> None:
    worker, connection = worker_at(url, f"process {os.getpid()}")
    worker.budgets.start()
    if mode == "hold":
        await hold(worker, int(numbers[0]), int(numbers[1]))
    else:
        await spend(worker, float(numbers[0]))
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
