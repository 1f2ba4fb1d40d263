"""Who calls, and what they may do: what an open door, a virtual key or the admin key comes to."""

import re
from dataclasses import dataclass
from typing import Final

from proxy.core.limits import Limits
from proxy.core.payer import Payer
from proxy.core.tags import Tags
from proxy.terms import DEFAULT_ACCOUNT, AccountId, Role, VirtualKeyId


@dataclass(frozen=True, slots=True)
class Principal:
    """The same for all requests of a virtual key until the key is changed.

    Shapes: ``virtual_key`` None: the caller has none (open access, the admin key). ``routes``: what may be asked for, as
    names or patterns with one ``*`` of routes and of `<provider>/<model>`; None: everything. ``limits`` None: as configured
    for its account or for all keys. ``payers``: budgets of the virtual key itself, before its account's. ``tags``: kept in
    the ledger with the request's own. ``passthrough``: whether paths without a route may be asked. ``shares_cache`` False:
    it has answers of its own, which the account's other keys do not see.
    """

    account: AccountId = DEFAULT_ACCOUNT
    role: Role = Role.USER
    virtual_key: VirtualKeyId | None = None
    routes: tuple[str, ...] | None = None
    limits: Limits | None = None
    payers: tuple[Payer, ...] = ()
    tags: Tags = ()
    passthrough: bool = False
    shares_cache: bool = True

    @property
    def is_bound(self) -> bool:
        """Whether it belongs to one account or may use some routes only; an admin that is bound is one of these alone."""
        return self.account != DEFAULT_ACCOUNT or self.routes is not None

    def may_use(self, name: str) -> bool:
        """Whether it may ask for a route, or for a `<provider>/<model>`."""
        return self.routes is None or any(_matches(pattern, name) for pattern in self.routes)


ACCOUNT_ID: Final = r"[A-Za-z0-9_.-]{1,64}"
ANYBODY: Final = Principal(passthrough=True)  # where access is open


def account_of(text: str) -> AccountId | None:
    """The account of that id; None where it can be no account's."""
    return AccountId(text) if re.fullmatch(ACCOUNT_ID, text) else None


def _matches(pattern: str, name: str) -> bool:
    head, star, tail = pattern.partition("*")
    return pattern == name or (
        bool(star) and len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)
    )
