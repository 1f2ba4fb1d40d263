"""What `penstock bench` measured, summed up: one sample a request, one row a route or target. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.core.budget import usd


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Units: seconds from its sending, nano-USD. ``error`` None: a whole answer.

    ``first_s``: to the first content. ``cost_nanousd`` None: the server told no cost, and ``assumed_nanousd`` counts.
    """

    total_s: float
    first_s: float | None = None
    output_tokens: int = 0
    input_tokens: int = 0
    cost_nanousd: int | None = None
    assumed_nanousd: int = 0
    answered_by: str = ""
    error: str | None = None

    @property
    def spent_nanousd(self) -> int:
        return self.assumed_nanousd if self.cost_nanousd is None else self.cost_nanousd

    @property
    def tokens_a_s(self) -> float | None:
        """Of the answer while it was coming; None of one that came in one piece."""
        if self.error is not None or self.first_s is None or self.output_tokens < 2:
            return None
        coming_s = self.total_s - self.first_s
        return (self.output_tokens - 1) / coming_s if coming_s > 0 else None


@dataclass(slots=True)
class Row:
    """All samples of one name. ``unsent``: what the spending cap, or an interruption, left out."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    unsent: int = 0

    @property
    def good(self) -> list[Sample]:
        return [one for one in self.samples if one.error is None]

    def document(self) -> dict[str, Any]:
        """For JSON. Latencies are of whole answers; units: milliseconds, USD as text."""
        good = self.good
        rates = [rate for one in good if (rate := one.tokens_a_s) is not None]
        return {
            "name": self.name,
            "requests": len(self.samples),
            "unsent": self.unsent,
            "errors": len(self.samples) - len(good),
            "first_event_ms": _spread([one.first_s for one in good if one.first_s is not None]),
            "total_ms": _spread([one.total_s for one in good]),
            "tokens_per_s": None if not rates else round(percentile(rates, 0.5), 1),
            "input_tokens": sum(one.input_tokens for one in self.samples),
            "output_tokens": sum(one.output_tokens for one in self.samples),
            "cost_usd": usd(sum(one.cost_nanousd or 0 for one in self.samples)),
            "assumed_usd": usd(sum(one.assumed_nanousd for one in self.samples if one.cost_nanousd is None)),
            "answered_by": dict(Counter(one.answered_by for one in good if one.answered_by).most_common()),
            "reasons": dict(Counter(one.error for one in self.samples if one.error is not None).most_common(5)),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured, never one between two."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {
        name: round(percentile(seconds, share) * 1000, 1) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }
