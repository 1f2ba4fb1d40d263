"""Which target is asked next, after which wait: the order of an exchange's attempts.

Every planned target gets one send, in the plan's order; then those whose failure allows it get more, the soonest first.
A failure that may be cured at once (a stale connection, a refused `stream_options`, a refused credential beside others) is
cured before the next target.
What ends the tour: a failure that no other target would cure, or nothing left to ask.

States: the targets not asked yet (`_planned`), the repeats that may still be made (`_repeats`), the cure that comes next
(`_cure`). Deliberately not handled: time. The caller waits, and gives up when its deadline is nearer than the wait.
Held by `tests/core/test_tour.py`.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from proxy.core import backoff
from proxy.core.backoff import RetryPolicy
from proxy.core.failure import Again, Failure
from proxy.core.routing import Target


@dataclass(slots=True)
class Step:
    """Ask `target`, not before ``not_before`` (monotonic seconds), on a fresh connection, without asking for usage.

    ``repeat``: how often it has been asked before, cures apart. ``refused``: how many credentials its provider has refused.
    ``postponed``: it was its turn before.
    """

    target: Target
    not_before: float = 0.0
    fresh: bool = False
    plain: bool = False
    repeat: int = 0
    refused: int = 0
    postponed: bool = False


class Tour:
    """One exchange's way through its plan."""

    __slots__ = ("_cure", "_planned", "_policy", "_repeats", "_rng", "_step")

    def __init__(self, targets: Sequence[Target], policy: RetryPolicy, rng: random.Random) -> None:
        self._planned = deque(targets)
        self._policy = policy
        self._rng = rng
        self._repeats: list[Step] = []
        self._cure: Step | None = None
        self._step: Step | None = None

    def next(self) -> Step | None:
        """The next step; None where there is nothing left to ask."""
        if self._cure is not None:
            self._step, self._cure = self._cure, None
        elif self._planned:
            self._step = Step(self._planned.popleft())
        elif self._repeats:
            self._step = min(self._repeats, key=lambda step: step.not_before)
            self._repeats.remove(self._step)
        else:
            self._step = None
        return self._step

    @property
    def has_planned(self) -> bool:
        """Whether there is a target that has not been asked yet."""
        return self._cure is None and bool(self._planned)

    def resume(self, step: Step) -> None:
        """Of several steps under way, this is the last that is over."""
        self._step = step

    def failed(self, failure: Failure, now: float, step: Step | None = None) -> None:
        """Take note of how a step failed; of the last one, where none is named."""
        step = step or self.step
        match failure.row.again:
            case Again.ONCE_FRESH if not step.fresh:
                self._cure = _cured(step, fresh=True)
                return
            case Again.ONCE_WITHOUT if not step.plain:
                self._cure = _cured(step, plain=True)
                return
            case Again.OTHER_CREDENTIAL if step.refused + 1 < len(step.target.provider.credentials):
                self._cure = _cured(step, refused=step.refused + 1)
                return
            case Again.BACKED_OFF:
                hint_s = failure.retry_after_s or 0.0
                wait_s = max(backoff.delay(step.repeat + 1, self._policy, self._rng), hint_s)
                if hint_s <= self._policy.max_s:
                    self._repeat(step, now + wait_s)
            case Again.AFTER_HINT if failure.retry_after_s is not None:
                # A longer wait is the client's to decide: it is told in `retry-after`.
                if failure.retry_after_s <= self._policy.max_s:
                    self._repeat(step, now + failure.retry_after_s)
            case _:
                pass
        if not failure.row.next_target:
            self._planned.clear()
            self._repeats.clear()

    @property
    def step(self) -> Step:
        """The last step."""
        assert self._step is not None  # noqa: S101 - there was one
        return self._step

    def postpone(self, at: float) -> bool:
        """The last step was not taken: its target is not to be asked before `at`. False where it was put off before."""
        if self.step.postponed:
            return False
        self._repeats.append(replace(self.step, not_before=at, postponed=True))
        return True

    def _repeat(self, step: Step, not_before: float) -> None:
        if step.repeat + 1 < self._policy.attempts:
            again = Step(step.target, not_before, plain=step.plain, repeat=step.repeat + 1, refused=step.refused)
            self._repeats.append(again)


def _cured(step: Step, *, fresh: bool = False, plain: bool = False, refused: int = 0) -> Step:
    """The same step, at once, with what cures its failure beside what cured earlier ones."""
    refused = max(step.refused, refused)
    return Step(step.target, fresh=fresh, plain=step.plain or plain, repeat=step.repeat, refused=refused)


def verdict(failures: Sequence[Failure]) -> Failure:
    """The one failure that an exchange ends with, of all that its attempts ended with.

    Throttled everywhere: that, with the shortest wait told. Timed out everywhere: that. Otherwise the last one.
    """
    last = failures[-1]
    if all(failure.row.status == 429 for failure in failures):
        return min(failures, key=lambda each: float("inf") if each.retry_after_s is None else each.retry_after_s)
    return last
