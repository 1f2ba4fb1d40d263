"""The id that a request and its answer go by."""

import random
import re
from collections.abc import Iterable
from typing import Final

from proxy.core import redact
from proxy.terms import ExchangeId

_CLEAN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(given: str | None, rng: random.Random, secrets: Iterable[str] = ()) -> ExchangeId:
    """The client's own, where it is clean, holds none of `secrets` and looks like no key; else a new one."""
    if given is None or _CLEAN.fullmatch(given) is None or any(secret in given for secret in secrets):
        return new_id(rng)
    return ExchangeId(given) if redact.text(given) == given else new_id(rng)


def new_id(rng: random.Random) -> ExchangeId:
    return ExchangeId(f"req_{rng.getrandbits(96):024x}")
