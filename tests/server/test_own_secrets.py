"""The proxy's own secrets: made once, for this user alone, whole, and agreed on by all who start at once."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.server.own_secrets import ADMIN_KEY, OwnSecret, SecretRefused, SecretUnavailable, find, obtain

GOOD = "Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE"
PEPPER = OwnSecret("pepper", "PENSTOCK_PEPPER", "pepper")  # any secret goes the same way


@pytest.fixture(params=[ADMIN_KEY, PEPPER], ids=lambda secret: secret.name)
def secret(request: pytest.FixtureRequest) -> OwnSecret:
    assert isinstance(request.param, OwnSecret)
    return request.param


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keep(path: Path, text: str, bits: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(bits)


def test_it_is_made_once_and_found_again(secret: OwnSecret, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    assert find(secret, None, folder) is None
    assert not folder.exists(), "looking for one makes nothing"
    made = obtain(secret, None, folder)
    path = folder / secret.file
    assert (made.made, made.origin) == (True, str(path))
    assert len(made.value) == 43, "256 bits, urlsafe"
    assert path.read_text() == made.value + "\n"
    assert [entry.name for entry in folder.iterdir()] == [secret.file]
    again = obtain(secret, None, folder)
    assert (again.value, again.made) == (made.value, False)
    assert find(secret, None, folder) == again
    assert made.value not in repr(made)
    assert obtain(secret, None, tmp_path / "other").value != made.value


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_is_this_users_alone_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        obtain(ADMIN_KEY, None, tmp_path / "data")
    finally:
        os.umask(before)
    assert mode(tmp_path / "data" / "admin.key") == 0o600
    assert mode(tmp_path / "data") == 0o700 & ~umask


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    obtain(ADMIN_KEY, None, tmp_path / "data")
    assert mode(tmp_path / "data") == 0o755


def test_the_variable_comes_first_and_nothing_is_written(tmp_path: Path) -> None:
    held = obtain(ADMIN_KEY, GOOD, tmp_path / "data")
    assert (held.value, held.origin, held.made) == (GOOD, "PENSTOCK_ADMIN_KEY", False)
    assert not (tmp_path / "data").exists()


def test_a_file_that_somebody_wrote_is_used(tmp_path: Path) -> None:
    keep(tmp_path / "admin.key", f"  {GOOD}\r\n\n", 0o400)
    assert obtain(ADMIN_KEY, None, tmp_path).value == GOOD


@pytest.mark.parametrize("weak", ["changeme", GOOD[:31], "a" * 40, GOOD + " " + GOOD])
def test_a_weak_one_is_refused_with_what_to_do(weak: str, tmp_path: Path) -> None:
    with pytest.raises(SecretRefused) as caught:
        obtain(ADMIN_KEY, weak, tmp_path)
    told = str(caught.value)
    assert "PENSTOCK_ADMIN_KEY" in told
    assert "secrets.token_urlsafe(32)" in told
    assert weak not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("weak", ["", "\n", "changeme\n", "a" * 40, "\x00" * 40])
def test_a_weak_file_is_refused_and_left_alone(weak: str, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    keep(path, weak)
    for take in (find, obtain):
        with pytest.raises(SecretRefused, match="Remove the file, and a new one is made; or set PENSTOCK_ADMIN_KEY"):
            take(ADMIN_KEY, None, tmp_path)
    assert path.read_text() == weak


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o660, 0o602, 0o610])
def test_a_file_that_others_may_touch_is_refused_and_left_alone(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    keep(path, GOOD, bits)
    for take in (find, obtain):
        with pytest.raises(SecretRefused) as caught:
            take(ADMIN_KEY, None, tmp_path)
        assert f"chmod 600 {path}" in str(caught.value)
        assert f"{bits:04o}" in str(caught.value)
        assert GOOD not in str(caught.value)
    assert mode(path) == bits


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "admin.key")
    with pytest.raises(SecretRefused, match="is not a file"):
        obtain(ADMIN_KEY, None, tmp_path)


def test_a_link_leads_to_its_file(tmp_path: Path) -> None:
    keep(tmp_path / "elsewhere", GOOD)
    (tmp_path / "admin.key").symlink_to(tmp_path / "elsewhere")
    assert obtain(ADMIN_KEY, None, tmp_path).value == GOOD


def test_a_link_to_nowhere_is_not_followed_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "admin.key").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SecretUnavailable):
        obtain(ADMIN_KEY, None, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["admin.key"]


@pytest.mark.parametrize("folder", ["/dev/null/data", "/dev/null", "/proc/data", "x" * 300])
def test_a_folder_that_cannot_be_had_is_told(folder: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        obtain(ADMIN_KEY, None, Path(folder))
    assert "Set PENSTOCK_ADMIN_KEY, or PENSTOCK_DATA" in str(caught.value)


# In a process of its own, because it gives up its rights (root may write anywhere) or its room.
REFUSED = """
import os, resource, sys
from pathlib import Path
from proxy.server.own_secrets import ADMIN_KEY, SecretUnavailable, obtain
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
elif os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
try:
    obtain(ADMIN_KEY, None, Path(sys.argv[1]))
except SecretUnavailable as told:
    print(told)
"""


@pytest.mark.parametrize(
    ("case", "why"),
    [("closed", "Permission denied"), ("hidden", "Permission denied"), ("unreadable", "denied"), ("full", "too large")],
)
def test_a_disk_that_does_not_let_us_is_told_and_nothing_is_left(case: str, why: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "data"
    folder.mkdir()
    if case == "unreadable":
        keep(folder / "admin.key", GOOD, 0o000)
    folder.chmod({"closed": 0o555, "hidden": 0o000, "unreadable": 0o755, "full": 0o777}[case])
    # By a relative path: the folders above are nobody's business.
    command = [sys.executable, "-c", REFUSED, "data", case]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    finally:
        folder.chmod(0o755)
    assert why in told
    assert GOOD not in told
    assert [entry.name for entry in folder.iterdir()] == (["admin.key"] if case == "unreadable" else [])


RACER = """
import sys
from pathlib import Path
from proxy.server.own_secrets import ADMIN_KEY, obtain
root = Path(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    sys.stdin.readline()
    held = obtain(ADMIN_KEY, None, root / str(number))
    print(held.value, held.made, flush=True)
"""


def test_all_who_start_at_once_agree(tmp_path: Path) -> None:
    rounds, racers = 40, 6
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(racers)
    ]
    try:
        pipes = [(one.stdin, one.stdout) for one in processes if one.stdin is not None and one.stdout is not None]
        assert [output.readline() for _, output in pipes] == ["ready\n"] * racers
        for number in range(rounds):
            for entry, _ in pipes:
                entry.write("\n")
                entry.flush()
            told = [output.readline().split() for _, output in pipes]
            assert len({value for value, _ in told}) == 1
            assert sorted(made for _, made in told) == ["False"] * (racers - 1) + ["True"]
            assert [entry.name for entry in (tmp_path / str(number)).iterdir()] == ["admin.key"]
    finally:
        for one in processes:
            one.kill()
            one.communicate()
