"""What the findings of `penstock doctor` are made of."""

import pytest

from proxy.core import checkup
from proxy.core.checkup import Level, Used

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM


@pytest.mark.parametrize(
    ("ahead_s", "took_s", "level"),
    [
        *((0.0, 0.0, OK), (1.0, 0.0, OK), (1.01, 0.0, WARNING), (-1.01, 0.0, WARNING), (-9.9, 0.0, WARNING)),
        *((10.01, 0.0, PROBLEM), (-60.0, 0.0, PROBLEM), (1.5, 0.6, OK), (11.0, 2.0, WARNING), (0.0, 3.0, OK)),
    ],
)
def test_clocks(ahead_s: float, took_s: float, level: Level) -> None:
    found = checkup.clock("Redis", ahead_s, took_s)
    assert found.level is level
    if level is not OK:
        assert ("ahead of" if ahead_s > 0 else "behind") in found.told
        assert "NTP" in found.do


@pytest.mark.parametrize(
    ("soft", "level"), [(255, PROBLEM), (256, WARNING), (1024, WARNING), (4095, WARNING), (4096, OK), (1 << 30, OK)]
)
def test_descriptors(soft: int, level: Level) -> None:
    assert checkup.descriptors(soft, 1 << 30).level is level


def test_descriptors_are_told_as_streams() -> None:
    assert "enough for 480 streams" in checkup.descriptors(1024, 4096).told
    assert "ulimit -n 4096" in checkup.descriptors(1024, 4096).do


@pytest.mark.parametrize(
    ("mode", "secret", "other"),
    [(0o600, OK, OK), (0o400, OK, OK), (0o640, PROBLEM, WARNING), (0o604, PROBLEM, WARNING), (0o602, PROBLEM, WARNING)],
)
def test_modes(mode: int, secret: Level, other: Level) -> None:
    assert checkup.file_mode("data/admin.key", mode, is_secret=True).level is secret
    assert checkup.file_mode("data/ledger.sqlite3", mode, is_secret=False).level is other


def test_schemas() -> None:
    levels = {
        one.told.split()[-1] if one.level is OK else one.told: one.level
        for one in checkup.schema(
            "here", {"ledger": 1, "keys": 2, "audit": 1, "new": 1}, {"ledger": 1, "keys": 1, "audit": 3}
        )
    }
    assert list(levels.values()) == [OK, PROBLEM, WARNING, PROBLEM]


def test_providers_and_routes() -> None:
    used = [Used("openai", None, ["a"]), Used("groq", "GROQ_API_KEY is not set", ["a", "b", "c", "d", "e"])]
    first, second = checkup.providers(used)
    assert (first.level, second.level) == (OK, WARNING)
    assert "routes skip it: a, b, c and 2 more" in second.told
    demo, _ = checkup.providers(used[1:])
    assert "demo mode" in demo.told
    assert checkup.routes([], 3).level is OK
    assert checkup.routes(["x"], 3).told.startswith("1 of 4 have no active target")


def test_packages() -> None:
    assert checkup.distributions(["Penstock", "penstock"], []).level is OK
    assert "the distribution proxy.py" in checkup.distributions(["proxy.py", "penstock"], []).told
    assert checkup.distributions([], ["/x/proxy.py"]).level is PROBLEM


def test_ports() -> None:
    assert checkup.port("127.0.0.1", 1, None).level is OK
    assert checkup.port("127.0.0.1", 1, "penstock").level is OK
    taken = checkup.port("127.0.0.1", 4020, "Address already in use")
    assert (taken.level, taken.do) == (PROBLEM, "Stop it, or choose another port: PENSTOCK_PORT=4021")


def test_the_worst_counts() -> None:
    assert checkup.worst([]) is OK
    assert checkup.worst([checkup.ok("a", ""), checkup.warning("a", "", "")]) is WARNING
    assert checkup.worst([checkup.problem("a", "", ""), checkup.warning("a", "", "")]) is PROBLEM


def test_live_and_retired() -> None:
    assert checkup.live("openai", None, 0.05).told == "openai answered in 50 ms"
    assert checkup.live("openai", "credential_rejected", 0.05).level is PROBLEM
    assert [one.level for one in checkup.retired({})] == [OK]
    assert [one.level for one in checkup.retired({"a/b": "gone"})] == [WARNING]
