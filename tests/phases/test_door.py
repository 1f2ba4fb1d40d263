"""Who is let in, and as whom."""

from dataclasses import replace

import pytest
from multidict import CIMultiDict

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.principal import ANYBODY, Principal
from proxy.core.wrong_keys import WRONG_MAX
from proxy.phases.door import Door
from proxy.terms import AccountId, Role, VirtualKeyId
from tests.gateway import RecordingLog

ADMIN = Principal(role=Role.ADMIN, passthrough=True)
ACME = Principal(AccountId("acme"), virtual_key=VirtualKeyId("k1"))
BOUND = Principal(AccountId("acme"), Role.ADMIN, VirtualKeyId("k2"))
PARTIAL = Principal(role=Role.ADMIN, virtual_key=VirtualKeyId("k3"), routes=("simple",))
KEYS = {"admin": ADMIN, "acme": ACME, "bound": BOUND, "partial": PARTIAL}


class Caller:
    def __init__(self, *headers: tuple[str, str], peer: str = "192.0.2.1") -> None:
        self.headers = CIMultiDict(headers)
        self.peer = peer


def bearer(key: str, *more: tuple[str, str]) -> Caller:
    return Caller(("Authorization", f"Bearer {key}"), *more)


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.log = RecordingLog()

    def door(self, *, is_open: bool = False) -> Door:
        return Door(self._verify, self.log, lambda: self.now, is_open=is_open)

    @staticmethod
    def _verify(presented: str) -> Principal | Failure:
        if presented == "stale":
            return Failure(FailureKind.STORE_UNAVAILABLE, "Keys cannot be looked up.")
        return KEYS.get(presented) or Failure(FailureKind.KEY_REFUSED, "Nobody's.")


def refused(door: Door, caller: Caller) -> Failure:
    with pytest.raises(Rejected) as caught:
        door.principal_of(caller)
    return caught.value.failure


@pytest.mark.parametrize("carrier", ["authorization", "x-api-key", "api-key", "X-API-Key"])
def test_s04_every_carrier_is_alike(carrier: str) -> None:
    door = Scene().door()
    shown = "Bearer acme" if carrier == "authorization" else "acme"
    assert door.principal_of(Caller((carrier, shown))) is ACME
    assert refused(door, Caller((carrier, f"{shown}x"))).kind is FailureKind.KEY_REFUSED
    assert refused(door, Caller((carrier, " "))).kind is FailureKind.KEY_REFUSED


def test_s04_two_keys_are_none_and_one_twice_is_one() -> None:
    door = Scene().door()
    assert refused(door, bearer("acme", ("x-api-key", "admin"))).kind is FailureKind.BAD_REQUEST
    assert refused(door, Caller(("authorization", "Basic acme"), ("x-api-key", "acme"))).kind is FailureKind.BAD_REQUEST
    assert door.principal_of(bearer("acme", ("x-api-key", "acme"))) is ACME


def test_an_open_door_looks_at_no_key() -> None:
    door = Scene().door(is_open=True)
    for caller in (Caller(), bearer("acme"), bearer("anything", ("x-api-key", "else"))):
        assert door.principal_of(caller) is ANYBODY


@pytest.mark.parametrize("is_open", [True, False])
def test_only_an_admin_of_everything_acts_for_an_account(*, is_open: bool) -> None:
    door = Scene().door(is_open=is_open)
    wanted = ("x-penstock-account", "globex")
    assert door.principal_of(bearer("admin", wanted)) == replace(ADMIN, account=AccountId("globex"))
    for key in ("acme", "bound", "partial"):
        assert refused(door, bearer(key, wanted)).kind is FailureKind.ROLE_TOO_LOW
    assert refused(door, Caller(wanted)).kind is FailureKind.KEY_REFUSED
    assert refused(door, bearer("nobody", wanted)).kind is FailureKind.KEY_REFUSED
    for bad in ("a/b", "", "x" * 65, "acme\u00e9"):
        assert refused(door, bearer("admin", ("x-penstock-account", bad))).kind is FailureKind.BAD_REQUEST


def test_s16_wrong_keys_are_limited_by_address_and_right_ones_never() -> None:
    scene = Scene()
    door = scene.door()
    kinds = [refused(door, bearer(f"wrong {number}")).kind for number in range(1000)]
    assert kinds == [FailureKind.KEY_REFUSED] * WRONG_MAX + [FailureKind.WRONG_KEYS_LIMITED] * (1000 - WRONG_MAX)
    assert len(scene.log.events) == WRONG_MAX + 1, "a loop of wrong keys fills no log"
    assert refused(door, bearer("wrong")).retry_after_s == 60.0
    assert door.principal_of(bearer("acme")) is ACME
    assert refused(door, Caller(("x-api-key", "wrong"), peer="192.0.2.2")).kind is FailureKind.KEY_REFUSED
    scene.now = 60.0
    assert refused(door, bearer("wrong")).kind is FailureKind.KEY_REFUSED
    assert "wrong 7" not in str(scene.log.events), "a wrong key may be a typing error of a right one"


def test_a_store_that_is_away_is_no_wrong_key() -> None:
    scene = Scene()
    assert refused(scene.door(), bearer("stale")).kind is FailureKind.STORE_UNAVAILABLE
    assert scene.log.events == []


@pytest.mark.parametrize(
    ("routes", "may", "may_not"),
    [
        (None, ["simple", "openai/gpt-4o"], []),
        ((), [], ["simple", ""]),
        (
            ("simple", "openai/*"),
            ["simple", "openai/gpt-4o", "openai/"],
            ["simpler", "xopenai/a", "openrouter/openai/a"],
        ),
        (("*-mini",), ["gpt-mini", "-mini"], ["mini", "gpt-mini-x"]),
        (("a*a",), ["aa", "aba"], ["a"]),
        (("*",), ["anything", ""], []),
    ],
)
def test_what_a_key_may_use(routes: tuple[str, ...] | None, may: list[str], may_not: list[str]) -> None:
    principal = Principal(routes=routes)
    assert all(principal.may_use(name) for name in may)
    assert not any(principal.may_use(name) for name in may_not)
