"""What a script is, and how it reads its arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxy.simulator.ask import Ask
from proxy.simulator.intake import Interruption
from proxy.simulator.memory import Memory
from proxy.simulator.wire import Steps

COUNT_MAX: Final = 1_000_000
WAIT_S_MAX: Final = 600.0  # longer than a client waits


class BadArgument(Exception):  # noqa: N818 - it names what it is about
    """A script's argument cannot be read; the request is answered with 400. Raised before the script's first step."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What a script gets to play from. Every argument has a default: a bare script name works."""

    ask: Ask
    args: tuple[str, ...]
    memory: Memory

    def count(self, place: int, default: int, most: int = COUNT_MAX) -> int:
        given = self.text(place, str(default))
        if not given.isascii() or not given.isdecimal() or int(given) > most:
            raise BadArgument(f"expected a whole number up to {most}, got {given!r}")
        return int(given)

    def wait_s(self, place: int, default: str) -> float:
        """Units: `200ms`, `2s`, `1.5s`; a bare number is milliseconds."""
        given = self.text(place, default)
        number, scale = given.removesuffix("ms"), 0.001
        if number == given and given.endswith("s"):
            number, scale = given[:-1], 1.0
        try:
            seconds = float(number) * scale
        except ValueError:
            seconds = -1.0
        if not 0.0 <= seconds <= WAIT_S_MAX:
            raise BadArgument(f"expected a wait such as 200ms or 2s, at most {WAIT_S_MAX:.0f} s, got {given!r}")
        return seconds

    def text(self, place: int, default: str) -> str:
        return self.args[place] if place < len(self.args) and self.args[place] else default

    def rest(self, place: int) -> str:
        """All arguments from this one on, with their colons."""
        return ":".join(self.args[place:])


Play: TypeAlias = Callable[[Cue], Steps]


@dataclass(frozen=True, slots=True)
class Script:
    """``usage`` is how it is written; ``streamed`` answers where a stream of events is asked for, ``binary`` (if given)
    where the answer is a stream of bytes, ``whole`` everything else. ``interrupts``: what it does while the body of the
    request still comes.
    """

    usage: str
    about: str
    streamed: Play
    whole: Play
    binary: Play | None = None
    interrupts: Callable[[Cue], Interruption] | None = None

    def play_for(self, ask: Ask) -> Play:
        if not ask.stream:
            return self.whole
        return self.binary if ask.binary and self.binary is not None else self.streamed

    @property
    def name(self) -> str:
        return self.usage.partition("[")[0].partition(":")[0]


def same(usage: str, about: str, play: Play) -> Script:
    return Script(usage, about, play, play)
