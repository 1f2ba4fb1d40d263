"""What a route says of the cache."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Units: seconds. ``tool_calls``: whether answers that call tools are kept. ``paced``: a replayed stream comes event by
    event, as a model would write it; else at once.
    """

    ttl_s: float
    tool_calls: bool = False
    paced: bool = False
