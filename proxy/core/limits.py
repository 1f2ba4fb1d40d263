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

# What may be configured, in the routes file and for a virtual key: a bucket of the largest stays within 2^53.
RPS: Final = (0.001, 1_000_000)
BURST_MAX: Final = 1_000_000
TPM_MAX: Final = 1_000_000_000
CONCURRENCY_MAX: Final = 100_000
FILL_S_MAX: Final = 24 * 3600  # of a bucket: what takes longer is a quota, and a mistyped rate most likely
