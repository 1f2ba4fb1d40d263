"""What `penstock explain` tells of limits: whose hold for a caller, and what may be sent to a provider."""

from collections.abc import Iterable

from proxy.core.limit_table import limited_subjects
from proxy.core.limit_words import limits_told, whose
from proxy.core.limiting import LimitClaim
from proxy.core.principal import ANYBODY
from proxy.core.routing import RoutingTable, Target


def told(table: RoutingTable, targets: Iterable[Target]) -> list[str]:
    """A line for each subject with limits: whoever comes without a virtual key, accounts, and the targets' providers."""
    return [f"limited: {whose(claim)} ({limits_told(claim)})" for claim in _claims(table, targets)]


def as_json(table: RoutingTable, targets: Iterable[Target]) -> list[dict[str, object]]:
    return [
        {
            "subject": claim.subject,
            "rps": None if claim.requests is None else claim.requests.per_s,
            "burst": None if claim.requests is None else claim.requests.permits,
            "tpm": None if claim.tokens is None else claim.tokens.permits,
            "concurrency": claim.slots,
        }
        for claim in _claims(table, targets)
    ]


def _claims(table: RoutingTable, targets: Iterable[Target]) -> list[LimitClaim]:
    asked = {target.provider.id for target in targets}
    sent = [claim for provider, claim in table.limits.sent.items() if provider in asked]
    accounts = [claim for claim in table.limits.configured() if claim.subject.startswith("account:")]
    claims = [*limited_subjects(ANYBODY, table.limits), *accounts, *sent]
    return list({claim.subject: claim for claim in reversed(claims)}.values())[::-1]
