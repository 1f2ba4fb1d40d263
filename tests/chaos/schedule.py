"""What goes wrong, and when: rounds without end, each of three kinds of fault at once, the same for a seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

ASKS: Final = 24  # a round
WITHIN_S: Final = 0.5  # in which all of a round is asked for, and what goes wrong goes wrong


class Fault(Enum):
    UPSTREAM = "upstream"  # answers that fail, by script
    CLIENT = "client"  # clients that leave
    READER = "reader"  # clients that read slowly what is large
    STORE = "store"  # Redis stopped, hung, emptied, flushed of its scripts
    NET = "net"  # delays and cuts between Penstock and the upstream


class Store(Enum):
    STOPPED = "stopped"
    HUNG = "hung"
    EMPTIED = "emptied"
    FLUSHED = "flushed"


_WELL: Final = ("plain", "events:50", "burst:50", "paced:20:10ms", "slow:5ms", "delay:50ms", "split:7", "no-usage")
_BAD: Final = (
    *("cut:3", "reset:3", "mid-event:3", "clean-end:3", "stall:3", "error-event:3", "bad-json:3", "cut:40"),
    *("429", "429:1", "500", "503", "503:1", "refuse", "hangup", "garbage", "silent", "half-head", "head-then-cut"),
    *("head-then-silence", "head-then-fin", "error-first:500", "error-in-200:500", "html", "not-json", "drip:3"),
)
_LARGE: Final = ("big-event:614400", "events:2000")
_ROUTES: Final = ("after-503", "after-reset", "after-silence")


@dataclass(frozen=True, slots=True)
class Ask:
    """``leaves_s``: so long after it has asked, with a reset; None: it stays. Units: seconds, from the round's beginning."""

    at_s: float
    model: str
    stream: bool
    gateway: int
    leaves_s: float | None
    slow: bool


@dataclass(frozen=True, slots=True)
class Round:
    faults: frozenset[Fault]
    asks: tuple[Ask, ...]
    store: Store | None
    store_at_s: float
    store_for_s: float
    delay_s: float  # of each piece of an upstream's answer
    cuts_at_s: tuple[float, ...]

    def __str__(self) -> str:
        words = sorted(fault.value for fault in self.faults)
        return " + ".join(words) + (f" ({self.store.value})" if self.store else "")


def rounds(seed: int) -> Iterator[Round]:
    rng = random.Random(seed)
    while True:
        yield _round(rng)


def _round(rng: random.Random) -> Round:
    faults = frozenset(rng.sample(list(Fault), 3))
    net = Fault.NET in faults
    return Round(
        faults=faults,
        asks=tuple(sorted((_ask(rng, faults) for _ in range(ASKS)), key=lambda ask: ask.at_s)),
        store=rng.choice(list(Store)) if Fault.STORE in faults else None,
        store_at_s=rng.uniform(0, WITHIN_S / 2),
        store_for_s=rng.uniform(0.1, 1.0),
        delay_s=rng.choice((0.0, 0.005, 0.03)) if net else 0.0,
        cuts_at_s=tuple(sorted(rng.uniform(0.05, WITHIN_S) for _ in range(rng.randint(1, 4)))) if net else (),
    )


def _ask(rng: random.Random, faults: frozenset[Fault]) -> Ask:
    slow = Fault.READER in faults and rng.random() < 0.2
    bad = Fault.UPSTREAM in faults and rng.random() < 0.6
    script = f"sim/{rng.choice(_LARGE if slow else _BAD if bad else _WELL)}"
    return Ask(
        at_s=rng.uniform(0, WITHIN_S),
        model=rng.choice(_ROUTES) if bad and rng.random() < 0.2 else script,
        stream=slow or rng.random() < 0.8,
        gateway=rng.randrange(2),
        leaves_s=rng.uniform(0, 0.3) if Fault.CLIENT in faults and rng.random() < 0.5 else None,
        slow=slow,
    )
