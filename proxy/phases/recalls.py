"""What the cache has done in this process, counted."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Recalls:
    """``counts``: exchanges by their cache state, of routes that have a cache."""

    counts: Counter[str] = field(default_factory=Counter)
    saved_nanousd: int = 0
