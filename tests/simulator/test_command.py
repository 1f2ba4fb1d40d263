"""`penstock simulate`, in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from proxy.cli.simulate import command
from proxy.simulator.scripts.table import SCRIPTS

_RUN = (sys.executable, "-W", "error", "-c", "from proxy.cli.simulate import command; command()", "--port", "0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_url_serves_and_ends_well(number: signal.Signals) -> None:
    with subprocess.Popen(_RUN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url + "/models", timeout=5) as answer:  # noqa: S310 - the URL is our own child's
            assert answer.status == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, "")


def test_the_list_names_every_script() -> None:
    result = CliRunner().invoke(command, ["--list"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == len(SCRIPTS)
    assert any(line.startswith("cut:K") for line in lines)


def test_the_list_as_json() -> None:
    rows = json.loads(CliRunner().invoke(command, ["--list", "--json"]).output)
    assert {row["model"] for row in rows} == {script.usage for script in SCRIPTS.values()}
    assert all(row["about"] for row in rows)


def test_a_taken_port_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(command, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "Try another --port" in result.output


def test_help_has_an_example_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from proxy.cli.simulate import command\n"
        "try: command(['--help'])\n"
        "finally: print([one for one in ('orjson', 'uvloop', 'aiohttp', 'proxy.simulator') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "curl " in done.stdout
    assert done.stdout.rstrip().endswith("[]")
