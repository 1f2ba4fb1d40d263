"""Which account a request may ask about: its own, where its key is bound to one."""

from typing import Final

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.terms import AccountId

_CHARS_TOLD_MAX: Final = 80


def account_asked(bound: AccountId | None, given: str | None) -> AccountId | None:
    """The account that is asked about; None: all of them. ``bound``: whose alone the caller may see.

    Raises `Rejected` for another than that, in the same words whether there is such an account or not.
    """
    if bound is None:
        return None if given is None else AccountId(given)
    if given is not None and given != bound:
        raise Rejected(Failure(FailureKind.UNKNOWN_PATH, f"There is no account {given[:_CHARS_TOLD_MAX]!r} here."))
    return bound
