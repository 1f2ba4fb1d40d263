"""`/admin/limits`: what subjects have taken of their limits, and how to make them forget it."""

from typing import Any

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.limit_table import LimitTable
from proxy.core.limiting import LimitClaim, LimitId, LimitStanding, account_limits, share, virtual_key_limits
from proxy.core.nearest import did_you_mean
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.admin.own import account_asked
from proxy.edge.admin.values import text
from proxy.ports import StoreAway
from proxy.terms import AccountId

RESET_AGAIN_S = 5.0


async def listed(ask: Ask) -> dict[str, Any]:
    """The accounts and providers with limits, and the callers that this process has seen; or those of one account."""
    account, limiter = account_asked(ask.account, text(ask.query, "account")), ask.runtime.limits
    claims = _claims(ask.runtime.table.limits, account)
    seen, standings = await limiter.look(tuple(claims))
    told = list(claims) if seen == "store" else [share(claim, limiter.workers) for claim in claims]
    return {
        "account": account,
        "state": "local" if limiter.away else "ok",
        "workers": limiter.workers,
        "limits": [
            _told(claim, claims[original], standing, seen)
            for original, claim, standing in zip(claims, told, standings, strict=True)
        ],
    }


async def reset(ask: Ask) -> dict[str, Any]:
    """Forget what a subject has taken, here and in every other process. What runs counts again within a lease's third."""
    subject = ask.body.get("subject")
    if not isinstance(subject, str) or not subject:
        raise bad("'subject' must be a text such as account:default, virtual_key:... or provider:openai.", "subject")
    try:
        found = await ask.runtime.limits.reset(LimitId(subject))
    except StoreAway as away:
        message = f"The limits cannot be reached now: {str(away).rstrip('.')}."
        raise Rejected(Failure(FailureKind.STORE_UNAVAILABLE, message, retry_after_s=RESET_AGAIN_S)) from None
    if not found:
        known = [claim.subject for claim in _claims(ask.runtime.table.limits, None)]
        message = f"Nothing is known of {subject[:80]!r}, so it has taken nothing.{did_you_mean(subject, known)}"
        raise bad(message, "subject")
    return {"reset": subject}


def _claims(table: LimitTable, account: AccountId | None) -> dict[LimitClaim, str | None]:
    """Each with the account that it belongs to; None: to all. An account's own provider is `provider:acme:gpu`."""
    found: dict[LimitClaim, str | None] = {}
    for claim in table.configured():
        kind, _, name = claim.subject.partition(":")
        owner, own, _ = name.partition(":")
        found[claim] = name if kind == "account" else owner if own else None
    for (caller, virtual_key), (_, claims) in table.known.items():
        its = {account_limits(caller)}
        if virtual_key is not None:
            its.add(virtual_key_limits(virtual_key))
        found |= {claim: caller for claim in claims if claim.subject in its}
    # Where somebody without a virtual key has asked, the account is there with what it has from the top as well.
    latest = {claim.subject: claim for claim in found}
    kept = {claim: found[claim] for claim in latest.values()}
    return {claim: owner for claim, owner in kept.items() if account is None or owner == account}


def _told(claim: LimitClaim, account: str | None, standing: LimitStanding, seen: str) -> dict[str, Any]:
    """``seen``: `store`, or `local`: this process's share, while the store is away. What has no limit is None."""
    requests, tokens = claim.requests, claim.tokens
    return {
        "subject": claim.subject,
        "account": account,
        "rps": None if requests is None else requests.per_s,
        "burst": None if requests is None else requests.permits,
        "requests_left": None if requests is None else requests.left(standing.requests_used),
        "requests_full_in_s": None if requests is None else requests.full_in_ms(standing.requests_used) / 1000,
        "tpm": None if tokens is None else tokens.permits,
        "tokens_left": None if tokens is None else tokens.left(standing.tokens_used),
        "tokens_full_in_s": None if tokens is None else tokens.full_in_ms(standing.tokens_used) / 1000,
        "concurrency": claim.slots,
        "under_way": standing.running if claim.is_leased else None,
        "seen": seen,
    }
