"""Faults while the body of the request still comes. They begin as soon as the model's name has come: a form that names it
behind its file is read up to there first.
"""

from dataclasses import dataclass
from typing import Final

from proxy.simulator.answers.errors import reason
from proxy.simulator.delivery import normal, refusal
from proxy.simulator.intake import Interruption
from proxy.simulator.scripts.script import BadArgument, Cue, Script
from proxy.simulator.wire import Ending, Steps

BYTES_MAX: Final = 1 << 30
_CLOSE_AFTER_S: Final = 0.02  # time for the answer to be read: what is unread here makes the close a reset there
_FORGOTTEN: Final = "600s"


def _early(cue: Cue) -> Steps:
    status = cue.count(0, 413, 599)
    if status < 400:
        raise BadArgument(f"expected a status from 400 to 599, got {status}")
    how = cue.text(1, "drain")
    if how not in ("drain", "close"):
        raise BadArgument(f"expected drain or close, got {how!r}")
    closes = how == "close"
    yield from refusal(cue.ask, status, reason(status), b"connection: close\r\n" if closes else b"")
    if closes:
        yield _CLOSE_AFTER_S
        yield Ending.FIN


def _early_interrupts(cue: Cue) -> Interruption:
    next(_early(cue))  # a wrong argument is told when the body has been read
    return lambda _received: _early(cue)


def _drop_upload(cue: Cue) -> Steps:
    """A body that is shorter than that is over before, and answered."""
    if cue.ask.request.body_bytes >= cue.count(0, 0, BYTES_MAX):
        yield Ending.RST
    yield from normal(cue.ask)


def _drop_upload_interrupts(cue: Cue) -> Interruption:
    least = cue.count(0, 0, BYTES_MAX)
    return lambda received: iter((Ending.RST,)) if received >= least else None


def _stall_upload(cue: Cue) -> Steps:
    _Stall.of(cue)
    yield from normal(cue.ask)


@dataclass(slots=True)
class _Stall:
    """Stops the reading once."""

    least: int
    wait_s: float
    over: bool = False

    @classmethod
    def of(cls, cue: Cue) -> "_Stall":
        return cls(cue.count(0, 0, BYTES_MAX), cue.wait_s(1, _FORGOTTEN))

    def __call__(self, received: int) -> float | None:
        if self.over or received < self.least:
            return None
        self.over = True
        return self.wait_s


SCRIPTS: Final = (
    Script(
        "early:CODE[:close]",
        "an error before the body is read; the rest of it is then read, or the connection closed",
        _early,
        _early,
        interrupts=_early_interrupts,
    ),
    Script(
        "drop-upload:BYTES",
        "the connection is reset once so many bytes of the body have come",
        _drop_upload,
        _drop_upload,
        interrupts=_drop_upload_interrupts,
    ),
    Script(
        "stall-upload:BYTES[:WAIT]",
        "nothing is read for WAIT (600s) once so many bytes of the body have come",
        _stall_upload,
        _stall_upload,
        interrupts=_Stall.of,
    ),
)
