"""What may become of a key, how stores keep it, and whom it makes of a caller."""

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from proxy.core import key_document, key_record, virtual_key
from proxy.core.budget import PROXY, account_subject, virtual_key_subject
from proxy.core.key_record import CacheScope, KeyBudgets, KeyRecord, principal_of, problem_of
from proxy.core.limits import Limits
from proxy.core.payer import NO_BUDGETS, BudgetTable, Limit, Payer
from proxy.core.principal import Principal
from proxy.core.window import Period
from proxy.terms import AccountId, NanoUsd, Role
from tests.keys import CREATED, OTHER_PEPPER, PEPPER, new_key

ACME = AccountId("acme")
FULL: dict[str, Any] = {
    "account": ACME,
    "role": Role.ADMIN,
    "routes": ("voice", "openai/*"),
    "limits": Limits(rps=1.5, burst=3, tpm=1000, concurrency=2),
    "budgets": KeyBudgets(NanoUsd(5 * 10**9), NanoUsd(10**11), 0.5, "Europe/Paris", True),
    "expires_at": CREATED + 100,
    "tags": (("team", "search"), ("sum", "a=b")),
    "cache": CacheScope.KEY,
}


def full() -> KeyRecord:
    return new_key(**FULL)[1]


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("fields", [{}, FULL, {"passthrough": True, "revoked_at": CREATED + 1}], ids=str)
def test_a_record_is_read_as_it_was_written(fields: dict[str, Any], rotated: bool) -> None:
    _, record = new_key(**fields)
    if rotated:
        record = key_record.rotated(record, virtual_key.make(record.id), OTHER_PEPPER, CREATED, 60)
    columns = key_document.columns_of(record)
    assert set(columns) == set(key_document.COLUMNS)
    assert key_document.record_from(columns) == record


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"role": "king"}, {"limits": {"rps": 1, "more": 2}}, {"cache": "all"}, {"routes": 5}],
    ids=str,
)
def test_a_record_that_this_version_cannot_read_is_none(change: dict[str, object]) -> None:
    columns = key_document.columns_of(full())
    settings = {**orjson.loads(columns["settings"]), **change}
    assert key_document.record_from({**columns, "settings": orjson.dumps(settings)}) is None
    assert key_document.record_from({**columns, "settings": "{"}) is None
    assert key_document.record_from({**columns, "settings": "[]"}) is None


def test_the_principal_of_a_bare_key() -> None:
    _, record = new_key()
    assert principal_of(record, NO_BUDGETS) == Principal(virtual_key=record.id)


def test_the_principal_of_a_key_with_everything() -> None:
    record = full()
    paris = ZoneInfo("Europe/Paris")
    daily = Limit(Period.DAILY, NanoUsd(5 * 10**9), NanoUsd(25 * 10**8))
    monthly = Limit(Period.MONTHLY, NanoUsd(10**11), NanoUsd(5 * 10**10))
    assert principal_of(record, NO_BUDGETS) == Principal(
        account=ACME,
        role=Role.ADMIN,
        virtual_key=record.id,
        routes=("voice", "openai/*"),
        limits=Limits(rps=1.5, burst=3, tpm=1000, concurrency=2),
        payers=(Payer(virtual_key_subject(record.id), (daily, monthly), paris, closed_when_away=True),),
        tags=(("team", "search"), ("sum", "a=b")),
        shares_cache=False,
    )


def test_a_budget_without_a_zone_has_its_accounts() -> None:
    limit = Limit(Period.DAILY, NanoUsd(1), NanoUsd(1))
    everybody = Payer(PROXY, (limit,), ZoneInfo("America/Lima"))
    acmes = Payer(account_subject(ACME), (limit,), ZoneInfo("Asia/Tokyo"), closed_when_away=True)
    table = BudgetTable((everybody,), {ACME: (acmes, everybody)})
    _, record = new_key(budgets=KeyBudgets(daily_nanousd=NanoUsd(10)))
    (payer,) = principal_of(record, table).payers
    assert (payer.zone.key, payer.closed_when_away) == ("America/Lima", False)
    assert payer.limits == (Limit(Period.DAILY, NanoUsd(10), NanoUsd(8)),)
    (payer,) = principal_of(replace(record, account=ACME), table).payers
    assert (payer.zone.key, payer.closed_when_away) == ("Asia/Tokyo", True)


def test_nothing_passes_through_under_a_budget() -> None:
    _, record = new_key(passthrough=True)
    assert principal_of(record, NO_BUDGETS).passthrough
    under = replace(record, budgets=KeyBudgets(monthly_nanousd=NanoUsd(1)))
    assert problem_of(under) is not None
    assert not principal_of(under, NO_BUDGETS).passthrough, "whatever is in the store"
    acmes = Payer(account_subject(ACME), (Limit(Period.DAILY, NanoUsd(1), NanoUsd(1)),), ZoneInfo("UTC"))
    table = BudgetTable((), {ACME: (acmes,)})
    assert principal_of(record, table).passthrough
    assert not principal_of(replace(record, account=ACME), table).passthrough, "the account's budget is one too"


def test_what_cannot_be_meant() -> None:
    _, record = new_key()
    assert problem_of(record) is None
    assert problem_of(full()) is None
    more = KeyBudgets(daily_nanousd=NanoUsd(2), monthly_nanousd=NanoUsd(1))
    assert problem_of(replace(record, budgets=more)) is not None
    assert problem_of(replace(record, limits=Limits(burst=3))) is not None


def test_a_revoked_key_stays_so() -> None:
    record = key_record.rotated(full(), virtual_key.make(), PEPPER, CREATED, 60)
    gone = key_record.revoked(record, CREATED + 5)
    assert (gone.revoked_at, gone.old, gone.old_until) == (CREATED + 5, None, None)
    assert key_record.revoked(gone, CREATED + 9) == gone


def test_a_rotation_keeps_one_old_secret_for_a_while() -> None:
    made, record = new_key()
    once = key_record.rotated(record, virtual_key.make(made.id), PEPPER, CREATED, 60)
    assert (once.old, once.old_until) == (record.hash, CREATED + 60)
    assert once.hash != record.hash
    twice = key_record.rotated(once, virtual_key.make(made.id), PEPPER, CREATED + 1, 10**9)
    assert (twice.old, twice.old_until) == (once.hash, CREATED + 1 + key_record.GRACE_S_MAX)
    at_once = key_record.rotated(twice, virtual_key.make(made.id), PEPPER, CREATED + 2)
    assert (at_once.old, at_once.old_until) == (None, None)


def test_a_key_is_over_at_its_very_second() -> None:
    record = full()
    assert not record.is_over(CREATED + 99.999)
    assert record.is_over(CREATED + 100)
