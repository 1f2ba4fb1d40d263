"""`penstock serve` in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PENSTOCK = [sys.executable, "-m", "proxy.cli.main"]
ADMIN_KEY = "test-BQ8wIqH3Yk0mYxKZ2cJ7nV5sD1rT9uLg"
PEPPER = "test-Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE"
# With these in the environment no secret is written to the directory that the tests run in.
ENVIRONMENT = {"PATH": os.environ["PATH"], "PENSTOCK_ADMIN_KEY": ADMIN_KEY, "PENSTOCK_PEPPER": PEPPER}


@contextmanager
def serving(
    *arguments: str, environ: dict[str, str] | None = None, program: Sequence[str] = PENSTOCK
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The process, its port, and what it printed up to its address."""
    process = subprocess.Popen(
        [*program, "serve", "--port", "0", "--grace", "0s", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENVIRONMENT, **(environ or {})},
    )
    assert process.stdout is not None
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            address = re.search(r"serves on http://127\.0\.0\.1:(\d+)/v1", line)
            if address:
                break
        else:
            raise AssertionError(f"it did not start: {printed}")
        yield process, int(address.group(1)), printed
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def config_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    return str(path)
