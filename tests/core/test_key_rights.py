"""S11: nobody makes or touches a virtual key that is stronger than themselves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import key_record, virtual_key
from proxy.core.key_record import CacheScope, KeyBudgets, KeyRecord
from proxy.core.key_rights import OPERATOR, covers, excess, excess_of_change
from proxy.core.limits import Limits
from proxy.core.pattern import patterns
from proxy.terms import AccountId, Role
from tests.keys import CREATED, PEPPER, new_key

ACCOUNTS = (AccountId("a"), AccountId("b"))
PATTERNS = ("*", "voice", "voi*", "*ce", "v*e", "openai/*", "openai/gpt-*", "openai/*-mini", "anthropic/*", "draft")
ASKED = (
    "voice",
    "void",
    "vase",
    "draft",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/o3",
    "anthropic/opus",
    "x",
    "vce",
)
_, PLAIN = new_key()


def or_none(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | values


limits = st.none() | st.builds(
    Limits,
    rps=or_none(st.integers(1, 3)),
    burst=or_none(st.integers(1, 4)),
    tpm=or_none(st.integers(1, 3)),
    concurrency=or_none(st.integers(1, 3)),
)
budgets = st.builds(KeyBudgets, daily_nanousd=or_none(st.integers(0, 3)), monthly_nanousd=or_none(st.integers(0, 3)))
records = st.builds(
    lambda **fields: replace(PLAIN, **fields),
    account=st.sampled_from(ACCOUNTS),
    role=st.sampled_from(Role),
    routes=st.none() | st.lists(st.sampled_from(PATTERNS), max_size=3).map(tuple),
    limits=limits,
    budgets=budgets,
    expires_at=or_none(st.integers(CREATED, CREATED + 3)),
    cache=st.sampled_from(CacheScope),
    passthrough=st.booleans(),
)
CONFIGURED = Limits(rps=2, tpm=2)


def matches(pattern: str, asked: str) -> bool:
    return pattern == asked or any(one.matches(asked) for one in patterns({pattern: None}))


def may(record: KeyRecord, configured: Limits) -> set[str]:
    """All that a holder may do, one by one: the slow, obvious reading of a record."""
    effective = record.limits or configured
    burst = effective.burst if effective.burst is not None else effective.rps
    able = {f"be {role.name}" for role in Role if role <= record.role}
    able |= {
        f"ask {name}" for name in ASKED if record.routes is None or any(matches(one, name) for one in record.routes)
    }
    for what, bound in (
        ("rps", effective.rps),
        ("burst", None if effective.rps is None else burst),
        ("tpm", effective.tpm),
        ("concurrency", effective.concurrency),
        ("spend a day", record.budgets.daily_nanousd),
        ("spend a month", record.budgets.monthly_nanousd),
        ("ask at", None if record.expires_at is None else record.expires_at - CREATED - 1),
    ):
        able |= {f"{what} {number}" for number in range(7) if bound is None or number <= bound}
    able |= {f"see answers of {record.account}"} if record.cache is CacheScope.ACCOUNT else set()
    able |= {"pass through"} if record.passthrough else set()
    return able | {f"act in {record.account}"}


ACTS: dict[str, Callable[[KeyRecord, KeyRecord, KeyRecord], tuple[str | None, tuple[KeyRecord, ...]]]] = {
    # endpoint: what it is refused for, and the keys that who asks gets hold of
    "POST /admin/keys": lambda actor, _, after: (excess(actor, after, CONFIGURED), (after,)),
    "PATCH /admin/keys/{id}": lambda actor, before, after: (
        excess_of_change(actor, before, after, CONFIGURED),
        (before, after),
    ),
    "DELETE /admin/keys/{id}": lambda actor, before, _: (
        excess_of_change(actor, before, key_record.revoked(before, CREATED), CONFIGURED),
        (before,),
    ),
    "POST /admin/keys/{id}/rotate": lambda actor, before, _: (
        excess_of_change(
            actor, before, key_record.rotated(before, virtual_key.make(before.id), PEPPER, CREATED, 9), CONFIGURED
        ),
        (before,),
    ),
}


@pytest.mark.parametrize("endpoint", ACTS)
@given(actor=records, before=records, after=records)
def test_s11_nobody_gets_hold_of_more_than_they_have(
    endpoint: str, actor: KeyRecord, before: KeyRecord, after: KeyRecord
) -> None:
    refused, held = ACTS[endpoint](actor, before, after)
    if actor.role is not Role.ADMIN:
        assert refused == "role", "a viewer makes nothing"
    if refused is None:
        for key in held:
            assert may(key, CONFIGURED) <= may(actor, CONFIGURED)


@given(
    actor=records,
    field=st.sampled_from(["role", "routes", "limits", "budgets", "expires_at", "passthrough", "cache"]),
    other=records,
)
def test_s11_one_field_is_judged_as_it_is_meant(actor: KeyRecord, field: str, other: KeyRecord) -> None:
    """A copy of an admin's key with one field of another's: refused if it may do more, for that field, and only then."""
    actor = replace(actor, role=Role.ADMIN)
    copy = replace(actor, **{field: getattr(other, field)})
    refused = excess(actor, copy, CONFIGURED)
    assert refused in (None, field)
    if refused is None:
        assert may(copy, CONFIGURED) <= may(actor, CONFIGURED)
    elif field != "routes":  # the names that are asked for here do not tell all patterns apart
        assert not may(copy, CONFIGURED) <= may(actor, CONFIGURED)


def test_s11_an_admin_of_an_account_makes_its_like_and_less() -> None:
    admin = replace(PLAIN, role=Role.ADMIN, account=ACCOUNTS[0], routes=("openai/*",), expires_at=CREATED + 9)
    assert excess(admin, admin) is None
    less = replace(admin, role=Role.USER, routes=("openai/gpt-*", "openai/o3"), expires_at=CREATED + 8)
    assert excess(admin, less) is None
    assert excess(admin, replace(less, account=ACCOUNTS[1])) == "account"
    assert excess(admin, replace(less, routes=None)) == "routes"
    assert excess(admin, replace(less, routes=("*",))) == "routes"
    assert excess(admin, replace(less, expires_at=None)) == "expires_at"
    assert excess(admin, replace(less, passthrough=True)) == "passthrough"
    assert excess(OPERATOR, replace(less, role=Role.ADMIN, account=ACCOUNTS[1], routes=None)) is None


def test_s11_limits_as_configured_are_not_exceeded_where_nobody_says_what_they_are() -> None:
    admin = replace(PLAIN, role=Role.ADMIN)
    assert excess(admin, replace(PLAIN, limits=None)) is None
    assert excess(admin, replace(PLAIN, limits=Limits(rps=1))) == "limits"
    assert excess(admin, replace(PLAIN, limits=Limits(rps=1, tpm=1)), CONFIGURED) is None
    assert excess(replace(admin, limits=Limits(rps=1)), PLAIN) == "limits", "as configured may be more"


@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS), st.text("voicegptna/-4", max_size=14))
def test_a_pattern_covers_what_it_matches_and_no_more(wide: str, narrow: str, asked: str) -> None:
    if covers(wide, narrow) and matches(narrow, asked):
        assert matches(wide, asked)
    assert covers(narrow, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("a*b", "ab", True),
        ("ab*b", "ab", False),
        ("a*", "a*z", True),
        ("a*z", "a*", False),
        ("*", "a*", True),
        ("aa", "a*", False),
        ("ab*ba", "ab*ba", True),
        ("ab*ba", "aba", False),
    ],
)
def test_patterns_within_patterns(wide: str, narrow: str, covered: bool) -> None:
    assert covers(wide, narrow) is covered
