"""Whose limits hold: the top's, the account's for its keys and as a whole, a key's own."""

from dataclasses import replace

import pytest

from proxy.core import limit_table, limit_words
from proxy.core.limit_table import NO_LIMITS, LimitTable, limited_subjects
from proxy.core.limits import UNLIMITED, Limits
from proxy.core.principal import ANYBODY, Principal
from proxy.terms import AccountId, ProviderId, VirtualKeyId

ACME = AccountId("acme")
TOP = Limits(rps=10, burst=50, tpm=200, concurrency=32)
OPENAI, GPU = ProviderId("openai"), ProviderId("gpu")
TABLE = LimitTable(TOP, {ACME: Limits(rps=5, tpm=100)}, {(None, OPENAI): Limits(concurrency=3)})


def key(account: AccountId = ACME, limits: Limits | None = None, name: str = "k") -> Principal:
    return Principal(account=account, virtual_key=VirtualKeyId(name), limits=limits)


def told(principal: Principal, table: LimitTable = TABLE) -> list[str]:
    return [f"{claim.subject}: {limit_words.limits_told(claim)}" for claim in limited_subjects(principal, table)]


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (ANYBODY, ["account:default: 10 requests a second, 50 at once, 200 tokens a minute, 32 under way"]),
        (
            replace(ANYBODY, account=ACME),
            ["account:acme: 5 requests a second, 5 at once, 100 tokens a minute, 32 under way"],
        ),
        (
            key(AccountId("globex")),
            ["virtual_key:k: 10 requests a second, 50 at once, 200 tokens a minute, 32 under way"],
        ),
        (
            key(),
            [
                "virtual_key:k: 5 requests a second, 5 at once, 100 tokens a minute, 32 under way",
                "account:acme: 5 requests a second, 5 at once, 100 tokens a minute",
            ],
        ),
        (
            key(limits=Limits(rps=0.5, concurrency=1)),
            [
                "virtual_key:k: 0.5 requests a second, 1 at once, 100 tokens a minute, 1 under way",
                "account:acme: 5 requests a second, 5 at once, 100 tokens a minute",
            ],
        ),
        (key(limits=UNLIMITED), ["account:acme: 5 requests a second, 5 at once, 100 tokens a minute"]),
        (key(AccountId("globex"), UNLIMITED), []),
    ],
)
def test_whose_limits_hold(principal: Principal, expected: list[str]) -> None:
    assert told(principal) == expected


def test_nobody_is_limited_where_nothing_is_configured() -> None:
    assert limited_subjects(ANYBODY, NO_LIMITS) == limited_subjects(key(), NO_LIMITS) == ()
    assert told(key(limits=Limits(tpm=7)), NO_LIMITS) == ["virtual_key:k: 7 tokens a minute"]


def test_a_key_that_is_changed_has_its_new_limits_at_once() -> None:
    table = LimitTable(TOP)
    assert limited_subjects(key(), table) is limited_subjects(key(), table)
    assert told(key(limits=UNLIMITED), table) == []
    assert len(told(key(), table)) == 1


def test_the_callers_that_are_kept_in_mind_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_table, "CLAIMS_MAX", 3)
    table = LimitTable(TOP)
    for number in range(10):
        assert len(limited_subjects(key(name=str(number)), table)) == 1
        assert len(table.known) <= 3


def test_what_is_sent_to_a_provider() -> None:
    (claim,) = TABLE.sent.values()
    assert (claim.subject, limit_words.limits_told(claim)) == ("provider:openai", "3 under way")


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "0s"),
        (20, "20ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (360_000, "6m0s"),
        (3_723_040, "1h2m3.04s"),
    ],
)
def test_times_as_openai_writes_them(ms: int, expected: str) -> None:
    assert limit_words.spelled(ms) == expected


def test_a_provider_that_two_accounts_have_each_for_itself_is_two() -> None:
    other = AccountId("globex")
    table = LimitTable(providers={(None, OPENAI): Limits(concurrency=3), (ACME, GPU): Limits(rps=1)})
    shared, own = table.sent_to(OPENAI, None), table.sent_to(GPU, ACME)
    assert (shared and shared.subject, own and own.subject) == ("provider:openai", "provider:acme:gpu")
    assert table.sent_to(GPU, other) is None
    assert table.sent_to(OPENAI, ACME) == shared, "a credential of its own is no way around what all share"
