"""How much a subject may ask for, as configured or as its virtual key says."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """None: without that limit.

    Units: ``rps`` requests a second in the long run, ``burst`` requests at once (None: as many as a second's), ``tpm`` LLM
    tokens a minute, in and out, ``concurrency`` exchanges under way.
    """

    rps: float | None = None
    burst: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


UNLIMITED: Final = Limits()
