"""The section `budgets`: amounts to the nano-dollar, what is told of each mistake, and who pays in the end."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.config.budgets import Budgets, budget_table, problems
from proxy.config.money import BUDGET_USD_MAX, nanousd
from proxy.config.read import read
from proxy.core.budget import MONEY_MAX
from proxy.core.currency import NANO
from proxy.core.window import Period
from proxy.terms import AccountId

NEVER = "so it can never be reached"


def daily(written: str) -> int:
    usd = Budgets.model_validate(loaded(f"daily: {written}")).daily
    assert usd is not None
    return nanousd(usd)


def loaded(text: str) -> Any:
    document = read(text, "routes.yaml")
    assert not document.problems
    return document.data


@pytest.mark.parametrize(
    ("written", "nano"),
    [
        ("0", 0),
        ("100", 100 * NANO),
        ("0.1", NANO // 10),
        ("12.50", 12_500_000_000),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("1.1", 1_100_000_000),
        ("999999.123456789", 999_999_123_456_789),
        ("'8999999.123456789'", 8_999_999_123_456_789),
        ("1234567.0", 1_234_567 * NANO),
        ("9000000", 9_000_000 * NANO),
    ],
)
def test_an_amount_is_exact(written: str, nano: int) -> None:
    assert daily(written) == nano


@given(st.decimals(min_value=0, max_value=999_999, places=9))
def test_every_amount_below_a_million_is_exact(amount: Decimal) -> None:
    assert daily(f"{amount:f}") == int(amount * NANO)


def test_the_largest_amount_is_money() -> None:
    assert BUDGET_USD_MAX * NANO <= MONEY_MAX


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{daily: -1}", "expected an amount of at least 0, got -1"),
        ("{daily: true}", "expected an amount in USD such as 0.15, got true"),
        ("{daily: '100 USD'}", "expected an amount in USD such as 0.15, got '100 USD'"),
        ("{daily: .inf}", "expected an amount in USD such as 0.15, got .inf"),
        ("{daily: .nan}", "expected an amount in USD such as 0.15, got .nan"),
        ("{monthly: 9000001}", "expected at most 9000000 USD, got 9000001"),
        ("{daily: 0.0000000001}", "expected at most 9 decimals, got 1e-10"),
        ("{daily: '0.0000000001'}", "expected at most 9 decimals, got '0.0000000001'"),
        (
            "{daily: 1234567.5}",
            '1234567.5 has more digits than a number here keeps. Write it in quotes: "1234567.89"',
        ),
        ("{alert_at: 80}", "expected a share above 0 and up to 1, got 80"),
        ("{alert_at: 0}", "expected a share above 0 and up to 1, got 0"),
        ("{timezone: Europe/Pariss}", "'Europe/Pariss' is no time zone of the IANA list. Did you mean 'Europe/Paris'?"),
        ("{timezone: ../../etc/passwd}", "'../../etc/passwd' is no time zone of the IANA list."),
        ("{timezone: ''}", "'' is no time zone of the IANA list."),
        ("{timezone: Europe}", "'Europe' is no time zone of the IANA list. Did you mean 'Europe/Rome'?"),
        ("{timezone: 3}", "expected a time zone such as Europe/Paris, got 3"),
        ("{when_away: open}", "expected slice or closed, got 'open'"),
        ("{when_away: [slice]}", "expected slice or closed, got a list"),
        ("{weekly: 5}", "Extra inputs are not permitted"),
    ],
)
def test_what_is_told_of_a_mistake(section: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Budgets.model_validate(loaded(section))
    (error,) = caught.value.errors()
    assert error["msg"] == told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budgets: {daily: 100, monthly: 1000}", []),
        (
            "budgets: {daily: 10, monthly: 5}",
            [(("budgets", "daily"), "10.00 a day is more than 5.00 a month, so it can never be reached")],
        ),
        (
            "budgets: {daily: 10}\naccounts: {acme: {budgets: {daily: 20, monthly: 15}}}",
            [
                (
                    ("accounts", "acme", "budgets", "daily"),
                    "20.00 a day is more than 15.00 a month, " + NEVER,
                ),
                (
                    ("accounts", "acme", "budgets", "daily"),
                    "20.00 is more than the whole proxy's 10.00, " + NEVER,
                ),
            ],
        ),
        ("budgets: {daily: x, monthly: [1]}\naccounts: {acme: 3, b: {budgets: 4}, c: {}}", []),
        ("accounts: 7", []),
    ],
)
def test_what_cannot_be_meant(text: str, expected: list[object]) -> None:
    assert list(problems(loaded(text))) == expected


def test_who_pays() -> None:
    top = Budgets.model_validate(loaded("{daily: 100, alert_at: 0.9, timezone: Europe/Paris, when_away: closed}"))
    accounts = {
        "acme": Budgets.model_validate(loaded("{monthly: 50, alert_at: 0.333, when_away: slice}")),
        "globex": Budgets.model_validate(loaded("{alert_at: 0.5}")),  # no limits of its own
        "initech": None,
    }
    table = budget_table(top, accounts)
    acme, everybody = table.payers_of(AccountId("acme"))
    assert (acme.subject, acme.zone.key, acme.closed_when_away) == ("account:acme", "Europe/Paris", False)
    (limit,) = acme.limits
    assert (limit.period, limit.cap_nanousd, limit.alert_nanousd) == (Period.MONTHLY, 50 * NANO, 16_650_000_000)
    assert (everybody.subject, everybody.closed_when_away) == ("proxy", True)
    (limit,) = everybody.limits
    assert (limit.period, limit.cap_nanousd, limit.alert_nanousd) == (Period.DAILY, 100 * NANO, 90 * NANO)
    for other in ("globex", "initech", "unheard of"):
        assert table.payers_of(AccountId(other)) == (everybody,)
    assert table.payers() == (everybody, acme)


def test_nothing_said_is_no_budget() -> None:
    table = budget_table(None, {"acme": None})
    assert table.payers_of(AccountId("acme")) == ()
    assert table.payers() == ()
    assert budget_table(Budgets(alert_at=0.5), {}).payers() == ()


def test_a_budget_of_nothing_is_a_budget() -> None:
    (payer,) = budget_table(Budgets.model_validate({"daily": 0}), {}).payers()
    assert [limit.cap_nanousd for limit in payer.limits] == [0]
    assert payer.zone.key == "UTC"
