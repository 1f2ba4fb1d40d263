"""How large answers are where nobody caps them: what a reservation must at least allow for."""

from collections import deque
from typing import Final

from proxy.terms import TargetName

SAMPLES_MAX: Final = 200
SAMPLES_MIN: Final = 20  # fewer tell nothing of the largest
TARGETS_MAX: Final = 1024  # clients can name targets
_AGAIN: Final = 20  # new samples after which the quantile is worked out anew


class OutputSizes:
    """The latest answers of each target. Units: output tokens of one choice."""

    __slots__ = ("_known", "_samples")

    def __init__(self) -> None:
        self._samples: dict[TargetName, deque[int]] = {}
        self._known: dict[TargetName, tuple[int, int]] = {}  # the quantile, and how many new samples it has not seen

    def note(self, target: TargetName, output_tokens: int) -> None:
        samples = self._samples.get(target)
        if samples is None:
            if len(self._samples) >= TARGETS_MAX:
                self._samples.clear()
                self._known.clear()
            samples = self._samples[target] = deque(maxlen=SAMPLES_MAX)
        samples.append(output_tokens)
        value, unseen = self._known.get(target, (0, _AGAIN))
        self._known[target] = (value, unseen + 1)

    def p99(self, target: TargetName) -> int:
        """What 99 of 100 answers stay within; 0 while too few are known."""
        samples = self._samples.get(target)
        if samples is None or len(samples) < SAMPLES_MIN:
            return 0
        value, unseen = self._known[target]
        if unseen >= _AGAIN:
            ordered = sorted(samples)
            value = ordered[-(-len(ordered) * 99 // 100) - 1]
            self._known[target] = (value, 0)
        return value
