"""The id that a request and its answer go by."""

import random
import re
from collections.abc import Iterable
from typing import Final

from proxy.terms import ExchangeId

_CLEAN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(given: str | None, rng: random.Random, secrets: Iterable[str] = ()) -> ExchangeId:
    """The client's own, where it is clean and holds none of `secrets`; else a new one."""
    if given is not None and _CLEAN.fullmatch(given) and not any(secret in given for secret in secrets):
        return ExchangeId(given)
    return new_id(rng)


def new_id(rng: random.Random) -> ExchangeId:
    return ExchangeId(f"req_{rng.getrandbits(96):024x}")
