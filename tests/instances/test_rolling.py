"""F099: both instances are stopped and started again, one after the other, and no client notices."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.gateway import CHAT, Answer
from tests.instances.conftest import World
from tests.instances.pair import Pair, ask, chat, connected, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

RATE = 50
CHECK_S = 0.2
UNDER_WAY_MAX = 50  # a machine that is too busy for the rate has less of it, and no backlog
KEEPERS = 4  # clients that keep their connection


@dataclass
class Load:
    """``asked``: those by connections of their own, at the rate; ``kept``: those by connections that are kept."""

    pair: Pair
    key: str
    over: bool = False
    asked: list["asyncio.Task[Answer]"] = field(default_factory=list)
    kept: list[Answer] = field(default_factory=list)
    reopened: int = 0

    async def run(self) -> None:
        keepers = [asyncio.create_task(self._keeper()) for _ in range(KEEPERS)]
        began = time.monotonic()
        while not self.over:
            number = len(self.asked)
            model = "sim/paced:10:20ms" if number % 5 == 0 else "sim/plain"
            self.asked.append(asyncio.create_task(ask(self.pair.port, self.key, chat(model, stream=number % 2 == 0))))
            await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))
            while sum(not one.done() for one in self.asked) >= UNDER_WAY_MAX:
                await asyncio.sleep(1 / RATE)
        await asyncio.gather(*keepers)

    async def _keeper(self) -> None:
        """As clients do: a connection is used again until an answer says that it ends."""
        while not self.over:
            connection = await connected(self.pair.port, self.key, chat("sim/plain"))
            self.reopened += 1
            while True:
                answer = await connection.answer()
                self.kept.append(answer)
                if answer.end != "whole" or answer.headers.get("connection") == "close" or self.over:
                    break
                await asyncio.sleep(0.1)
                connection.post(CHAT, chat("sim/plain"), {"authorization": f"Bearer {self.key}"})
            await connection.close()


async def test_f099_rolling_restart_at_50_a_second(world: World, tmp_path: Path) -> None:
    async with serving(tmp_path / "pair", world.config, world.environ) as pair:
        key, _ = await pair.new_key(account="rolling")
        checking = asyncio.create_task(pair.balancer.check(CHECK_S))
        load = Load(pair, key)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        for backend, instance in zip(pair.balancer.backends, pair.both, strict=True):
            long = await connected(instance.port, key, chat("sim/paced:50:50ms", stream=True))
            await long.until(b'"content":"')
            instance.terminate()
            answer = await long.answer()
            assert (answer.end, answer.body.endswith(b"data: [DONE]\n\n")) == ("whole", True)
            await long.close()
            assert await instance.ended() == 0
            await instance.start()
            backend.port = instance.port
            async with asyncio.timeout(20):
                while pair.balancer.taken[instance.port] < 10:
                    await asyncio.sleep(0.05)
        load.over = True
        await running
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
        answers = [*await asyncio.gather(*load.asked), *load.kept]
        failed = [one for one in answers if (one.status, one.end) != (200, "whole")]
        assert failed == []
        assert len(load.asked) > 3 * RATE, "there was no load to speak of"
        assert pair.balancer.refused == 0
        assert load.reopened > KEEPERS, "they were told to go on elsewhere"
        count = len(answers) + 2
        async with asyncio.timeout(10):
            while await booked(pair) != count:
                await asyncio.sleep(0.1)


async def booked(pair: Pair) -> int:
    found = await pair.one.admin("GET", "/admin/analytics/summary?days=2&account=rolling")
    return int(found["total"]["calls"])
