"""A failed test takes no other with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import aftermath

ROOT = Path(__file__).parents[1]

# One fails in the middle, with a socket in its hands, and so does what ends it. The next has nothing to do with it.
TESTS = """
import gc
import socket

import pytest

@pytest.fixture
def loop():
    yield
    raise OSError("busy: something is open")

def test_one(loop):
    left_open = [socket.create_server(("127.0.0.1", 0))]
    left_open.append(left_open)
    assert not left_open, "a failure in the middle"

def test_two():
    gc.collect()
"""


@pytest.mark.parametrize(
    ("plugins", "outcome"),
    [(["-p", aftermath.__name__], "1 failed, 1 passed, 1 error"), ([], "2 failed, 1 error")],
    ids=["held", "as pytest does it"],
)
def test_what_a_failed_test_leaves_behind_goes_with_it(plugins: list[str], outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "-p", "no:cacheprovider", *plugins, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert outcome in ran.stdout.splitlines()[-1], ran.stdout + ran.stderr
