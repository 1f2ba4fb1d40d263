"""Whose limits hold for an exchange or an attempt: what the configuration and a virtual key come to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.core import bucket
from proxy.core.limiting import LimitClaim, LimitId, account_limits, provider_limits, virtual_key_limits
from proxy.core.limits import UNLIMITED, Limits
from proxy.core.principal import Principal
from proxy.terms import AccountId, ProviderId, VirtualKeyId

CLAIMS_MAX: Final = 10_000  # virtual keys whose claims are kept in mind

SentTo = tuple[AccountId | None, ProviderId]
_Caller = tuple[AccountId, VirtualKeyId | None]


@dataclass(frozen=True, slots=True)
class LimitTable:
    """Limits as configured.

    Shapes: ``each`` holds for every virtual key, and where nobody has one for the account that they share. ``accounts`` are
    the accounts' own: they hold for each of its virtual keys before ``each``, and for the account as a whole.
    ``providers``: what is sent to one; with an account, to one that it has for itself. ``known`` is derived: the claims of
    callers that were seen.
    """

    each: Limits = UNLIMITED
    accounts: Mapping[AccountId, Limits] = field(default_factory=dict)
    providers: Mapping[SentTo, Limits] = field(default_factory=dict)
    sent: Mapping[SentTo, LimitClaim] = field(init=False, repr=False, compare=False)
    known: dict[_Caller, tuple[Limits | None, tuple[LimitClaim, ...]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sent = {to: claim_of(provider_limits(to[1], to[0]), limits) for to, limits in self.providers.items()}
        object.__setattr__(self, "sent", {one: claim for one, claim in sent.items() if claim is not None})
        object.__setattr__(self, "known", {})

    def sent_to(self, provider: ProviderId, owner: AccountId | None) -> LimitClaim | None:
        """What bounds all that is sent there. An account's own credential for a provider of all is no way around it."""
        own = self.sent.get((owner, provider))
        return own if own is not None or owner is None else self.sent.get((None, provider))

    def configured(self) -> Iterator[LimitClaim]:
        """The claims of accounts with limits of their own and of providers."""
        for account, limits in self.accounts.items():
            claim = claim_of(account_limits(account), limits)
            if claim is not None:
                yield claim
        yield from self.sent.values()


NO_LIMITS: Final = LimitTable()


def limited_subjects(principal: Principal, table: LimitTable) -> tuple[LimitClaim, ...]:
    """Of what an exchange of this caller takes, the narrowest subject first; empty: of nothing.

    A virtual key has its own limits, what it does not say from its account, and what that does not say from ``each``;
    one that is `UNLIMITED` has none, but its account's as a whole. Who has no virtual key shares the account's.
    """
    caller = (principal.account, principal.virtual_key)
    known = table.known.get(caller)
    if known is not None and known[0] == principal.limits:
        return known[1]
    found = _subjects(principal, table)
    if len(table.known) >= CLAIMS_MAX:
        table.known.clear()
    table.known[caller] = (principal.limits, found)
    return found


def _subjects(principal: Principal, table: LimitTable) -> tuple[LimitClaim, ...]:
    account = table.accounts.get(principal.account, UNLIMITED)
    whole = account_limits(principal.account)
    if principal.virtual_key is None:
        claims = [claim_of(whole, within(account, table.each))]
    else:
        own, inherited = principal.limits, within(account, table.each)
        effective = inherited if own is None else own if own == UNLIMITED else within(own, inherited)
        claims = [claim_of(virtual_key_limits(principal.virtual_key), effective), claim_of(whole, account)]
    return tuple(claim for claim in claims if claim is not None)


def within(own: Limits, inherited: Limits) -> Limits:
    """``own``, and of each kind that it does not name what is inherited."""
    rate = inherited if own.rps is None else own
    return Limits(
        rate.rps,
        rate.burst,
        inherited.tpm if own.tpm is None else own.tpm,
        inherited.concurrency if own.concurrency is None else own.concurrency,
    )


def claim_of(subject: LimitId, limits: Limits) -> LimitClaim | None:
    """None: without any limit."""
    if limits.rps is None and limits.tpm is None and limits.concurrency is None:
        return None
    return LimitClaim(
        subject,
        None if limits.rps is None else bucket.requests(limits.rps, limits.burst),
        None if limits.tpm is None else bucket.tokens(limits.tpm),
        limits.concurrency,
    )
