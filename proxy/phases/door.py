"""The door of the client side: which principal a request's headers come to. Decides without a store, and without waiting.

Where access is open everybody is `ANYBODY`, whatever they show. Else one key is shown, in one of three headers, and it is
the admin key's holder or a virtual key's. Whoever is an admin of the whole proxy may act for an account
(`x-penstock-account`), where access is open too. Wrong keys are counted by address, and a right one is let in whatever
wrong ones came from there.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.presented_keys import CARRIERS, presented_keys
from proxy.core.principal import ANYBODY, Principal, account_of
from proxy.core.wrong_keys import WrongKeys, peer_of
from proxy.ports import ExchangeLog
from proxy.terms import Role

ACCOUNT_HEADER: Final = "x-penstock-account"
_NONE: Final = (
    "This needs a key, and the request shows none. Send it as Authorization: Bearer, x-api-key or api-key; "
    "with an OpenAI SDK, set OPENAI_API_KEY."
)
_TWO: Final = "The request shows two different keys; send one of Authorization, x-api-key and api-key."
_LIMITED: Final = "Too many wrong keys came from this address. A right one is let in at any time."
_NOT_ADMIN: Final = (
    "x-penstock-account takes the admin key, or a virtual key with the role admin that belongs to no account."
)


class Caller(Protocol):
    """Shapes: header names are looked up without case. ``peer``: the address that it comes from."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def peer(self) -> str: ...


# What a shown key comes to; a failure of kind KEY_REFUSED says why it is nobody's.
Verify = Callable[[str], Principal | Failure]


class Door:
    """``is_open``: every caller is let in. ``now``: monotonic seconds."""

    def __init__(self, verify: Verify, log: ExchangeLog, now: Callable[[], float], *, is_open: bool) -> None:
        self._verify = verify
        self._log = log
        self._now = now
        self._wrong = WrongKeys()
        self.is_open = is_open

    def after(self, *, is_open: bool) -> "Door":
        """The door of another table, which knows the same keys and who has shown wrong ones."""
        door = Door(self._verify, self._log, self._now, is_open=is_open)
        door._wrong = self._wrong
        return door

    def principal_of(self, caller: Caller) -> Principal:
        """Who a request is from. Raises `Rejected`."""
        acts_for = caller.headers.get(ACCOUNT_HEADER)
        if self.is_open and acts_for is None:
            return ANYBODY
        principal = self._holder(caller)
        if acts_for is None:
            return principal
        if principal.role is not Role.ADMIN or principal.is_bound:
            raise Rejected(Failure(FailureKind.ROLE_TOO_LOW, _NOT_ADMIN))
        account = account_of(acts_for)
        if account is None:
            message = f"{ACCOUNT_HEADER} must be up to 64 letters, digits, '.', '_' and '-', got {acts_for[:80]!r}."
            raise Rejected(Failure(FailureKind.BAD_REQUEST, message))
        return replace(principal, account=account)

    def _holder(self, caller: Caller) -> Principal:
        shown = presented_keys(caller.headers.items())
        if not shown:
            raise Rejected(Failure(FailureKind.KEY_REFUSED, _NONE))
        if len(shown) > 1:
            raise Rejected(Failure(FailureKind.BAD_REQUEST, _TWO))
        found = self._verify(shown[0])
        if isinstance(found, Principal):
            return found
        if found.kind is FailureKind.KEY_REFUSED:
            found = self._wrong_key(found, caller.peer)
        raise Rejected(found)

    def _wrong_key(self, refused: Failure, address: str) -> Failure:
        peer = peer_of(address)
        wrong = self._wrong.add(peer, self._now())
        if not wrong.is_too_many:
            self._log.event("wrong key", peer=peer, why=refused.message)
            return refused
        if wrong.is_first_too_many:
            self._log.event("too many wrong keys; the next ones are not told", peer=peer)
        return Failure(FailureKind.WRONG_KEYS_LIMITED, _LIMITED, retry_after_s=wrong.left_s)


def challenges(failure: Failure) -> tuple[tuple[str, str], ...]:
    """What a refusal at the door has besides: RFC 9110 wants a 401 to name the scheme."""
    if failure.kind is FailureKind.KEY_REFUSED:
        return (("www-authenticate", 'Bearer realm="penstock"'), ("vary", ", ".join(CARRIERS)))
    return ()
