"""What `penstock explain` tells of limits: what holds for a caller of one account, and what may be sent to a provider."""

from collections.abc import Iterable
from typing import Final

from proxy.core.limit_table import limited_subjects
from proxy.core.limit_words import limits_told, whose
from proxy.core.limiting import LimitClaim, virtual_key_limits
from proxy.core.principal import Principal
from proxy.core.routing import RoutingTable, Target
from proxy.terms import DEFAULT_ACCOUNT, AccountId, VirtualKeyId

_ANY: Final = VirtualKeyId("*")  # of an account's virtual keys that have no limits of their own


def told(table: RoutingTable, account: AccountId, targets: Iterable[Target]) -> list[str]:
    """A line for each subject with limits: the account that asks and each of its keys, and the targets' providers."""
    return [f"limited: {_whose(claim)} ({limits_told(claim)})" for claim in _claims(table, account, targets)]


def as_json(table: RoutingTable, account: AccountId, targets: Iterable[Target]) -> list[dict[str, object]]:
    return [
        {
            "subject": claim.subject,
            "rps": None if claim.requests is None else claim.requests.per_s,
            "burst": None if claim.requests is None else claim.requests.permits,
            "tpm": None if claim.tokens is None else claim.tokens.permits,
            "concurrency": claim.slots,
        }
        for claim in _claims(table, account, targets)
    ]


def _whose(claim: LimitClaim) -> str:
    return "each virtual key" if claim.subject == virtual_key_limits(_ANY) else whose(claim)


def _claims(table: RoutingTable, account: AccountId, targets: Iterable[Target]) -> list[LimitClaim]:
    """Whoever comes without a virtual key is of the account `default`; of any other only keys can be."""
    caller = Principal(account=account, virtual_key=None if account == DEFAULT_ACCOUNT else _ANY)
    providers = dict.fromkeys((target.provider.id, target.provider.owner) for target in targets)
    sent = [table.limits.sent_to(*provider) for provider in providers]
    return [*limited_subjects(caller, table.limits), *(claim for claim in sent if claim is not None)]
