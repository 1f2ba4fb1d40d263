"""How a command reaches a running server, and what it says when it does not."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.admin_client import NoAnswer, address
from proxy.cli.main import main
from proxy.providers.rows import CATALOGUE
from proxy.server.settings import VARIABLES, Settings
from tests.gateway import closed_port
from tests.server.process import ADMIN_KEY, config_file, serving

OTHER_KEY = "test-other-Q8wIqH3Yk0mYxKZ2cJ7nV5sD1"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running Penstock's, with one active provider and the key of `ADMIN_KEY`."""
    config = config_file(tmp_path_factory.mktemp("live"), "routes: {voice: {tiers: [openai/small]}}")
    with serving("--config", config, environ={"OPENAI_API_KEY": "sk-very-secret"}) as (_, opened, _):
        yield opened


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """In an empty directory, with the environment of nobody; a proxy that the environment names must not matter."""
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, *(name for row in CATALOGUE.values() for name in row.key_vars)):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return CliRunner()


def run(runner: CliRunner, *args: str) -> Result:
    result = runner.invoke(main, ["providers", "--live", *args])
    assert ADMIN_KEY not in result.output
    assert OTHER_KEY not in result.output
    assert "very-secret" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def told(result: Result) -> str:
    """The message of a command that failed as commands do: on the error output alone, with 1."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("penstock: ")
    return result.stderr


def test_live_shows_what_the_server_has_and_not_what_is_here(
    runner: CliRunner, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("GROQ_API_KEY", "set here, not there")
    monkeypatch.setenv("PENSTOCK_CONFIG", "nowhere.yaml")
    monkeypatch.setenv("PENSTOCK_PORT", str(port))
    result = run(runner)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["PROVIDER", "STATE", "APIS", "BASE", "URL"]
    assert lines[1].split()[:2] == ["openai", "active"]
    assert "inactive: GROQ_API_KEY is not set" in next(line for line in lines if line.startswith("groq"))


def test_live_in_json_has_the_shape_of_the_command_without(
    runner: CliRunner, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    live = json.loads(run(runner, "--url", f"http://localhost:{port}/v1/", "--json").stdout)
    here = json.loads(runner.invoke(main, ["providers", "--json"]).stdout)
    assert [set(one) for one in live] == [set(one) for one in here]
    assert live[0] == {**here[0], "active": True, "inactive": None}


def test_the_key_is_found_in_the_data_directory(runner: CliRunner, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("PENSTOCK_DATA", "elsewhere")
    Path("elsewhere").mkdir()
    path = Path("elsewhere/admin.key")
    path.write_text(ADMIN_KEY + "\n")
    path.chmod(0o600)
    assert run(runner).exit_code == 0
    path.chmod(0o644)
    assert "chmod 600 elsewhere/admin.key" in told(run(runner))


def test_without_a_key_it_says_where_it_looked_and_makes_none(runner: CliRunner, port: int) -> None:
    message = told(run(runner, "--url", f"http://127.0.0.1:{port}"))
    assert "PENSTOCK_ADMIN_KEY is not set" in message
    assert "data/admin.key" in message
    assert "PENSTOCK_DATA" in message
    assert os.listdir() == []  # noqa: PTH208 - names alone


def test_a_wrong_key_is_told_with_where_it_is_from(
    runner: CliRunner, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", OTHER_KEY)
    message = told(run(runner, "--url", f"http://127.0.0.1:{port}"))
    assert "does not take the admin key of PENSTOCK_ADMIN_KEY" in message
    assert "PENSTOCK_DATA" in message


def test_a_server_that_does_not_run_is_told_with_what_to_start(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("PENSTOCK_PORT", str(closed_port()))
    message = told(run(runner))
    assert "nothing listens at http://127.0.0.1:" in message
    assert "penstock serve" in message


@contextmanager
def answering(raw: bytes) -> Iterator[int]:
    """A port at which every connection gets these bytes, once it has sent something."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _http(status: str, body: str, headers: str = "server: penstock\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body.encode())}\r\n\r\n{body}".encode()


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message, "code": "c"}})


ODD = [
    (_http("404 Not Found", _error("no such path")), ["has no /admin/providers", "another version", "--admin-port"]),
    (_http("200 OK", "<html>router login</html>", "server: nginx\r\n"), ["is not Penstock", "--url"]),
    (_http("404 Not Found", "not here", ""), ["(with 404) is not Penstock"]),
    (_http("200 OK", "[1]"), ["is not Penstock"]),
    (_http("200 OK", "[" * 100_000), ["is not Penstock"]),
    (_http("302 Found", "", "location: http://127.0.0.1:1/\r\n"), ["(with 302) is not Penstock"]),
    (_http("503 Service Unavailable", _error("The admin API is off")), ["answered 503: The admin API is off"]),
    (_http("421 Misdirected Request", _error("not by this name")), ["answered 421: not by this name"]),
    (_http("429 Too Many Requests", _error("slowly")), ["does not take the admin key"]),
    (_http("500 Oops", _error("a\x1b[2Jb\nc")), ["answered 500: a [2Jb c"]),
    (b"SSH-2.0-OpenSSH_9.2\r\n", ["does not speak HTTP"]),
    (b"", ["does not speak HTTP"]),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", ["was cut"]),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{", ["was cut"]),
]


@pytest.mark.parametrize(("raw", "words"), ODD, ids=range(len(ODD)))
def test_an_odd_answer_is_told_as_what_it_is(
    raw: bytes, words: list[str], runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    with answering(raw) as odd:
        message = told(run(runner, "--url", f"http://127.0.0.1:{odd}"))
    for word in words:
        assert word in message
    assert "\x1b" not in message
    assert message.count("\n") == 1


def test_a_server_that_says_nothing_is_given_up(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.cli.admin_client.WAIT_S", 0.1)
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = told(run(runner, "--url", f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert "no answer from" in message


@pytest.mark.parametrize("name", ["255.255.255.255", "a" * 70 + ".invalid"])  # refused before anything is sent
def test_a_host_that_cannot_be_is_told(name: str, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    result = run(runner, "--url", f"http://{name}:4020")
    assert result.exit_code == 1
    assert f"{name}:4020 cannot be reached" in result.stderr
    assert "in clear" in result.stderr, "the key would go to another machine without TLS"


ADDRESSES = [
    (None, {}, "http://127.0.0.1:4020"),
    (None, {"PENSTOCK_PORT": "5000"}, "http://127.0.0.1:5000"),
    (None, {"PENSTOCK_PORT": "5000", "PENSTOCK_ADMIN_PORT": "6000"}, "http://127.0.0.1:6000"),
    (None, {"PENSTOCK_PORT": "5000", "PENSTOCK_URL": "https://proxy.example"}, "https://proxy.example"),
    ("http://[::1]:4020", {"PENSTOCK_URL": "https://proxy.example"}, "http://[::1]:4020"),
    ("https://proxy.example/v1/", {}, "https://proxy.example"),
    ("https://proxy.example/llm/v1", {}, "https://proxy.example/llm"),
    ("https://proxy.example/admin", {}, "https://proxy.example"),
]


@pytest.mark.parametrize(("given", "environ", "found"), ADDRESSES)
def test_where_the_server_is(given: str | None, environ: dict[str, str], found: str) -> None:
    assert str(address(given, Settings.of(environ))) == found


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:4020", "proxy.example", "ftp://proxy.example", "http://", "http://u:p@proxy.example", "http://x:port",
     "http://x:99999", "http://x?y=1", "http://x#y", "http://x y", "http://\u00fc", "http://[::1", ""],
)  # fmt: skip
def test_what_is_no_url_is_told_by_who_said_it(url: str) -> None:
    if url:
        with pytest.raises(NoAnswer, match=r"^--url: expected a URL such as http://127.0.0.1:4020"):
            address(url, Settings())
        with pytest.raises(NoAnswer, match=r"^PENSTOCK_URL: expected a URL"):
            address(None, Settings(url=url))
    else:
        assert str(address(url, Settings())) == "http://127.0.0.1:4020"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--live", "--config", "routes.yaml"], "Leave --config out"),
        (["--url", "http://127.0.0.1:4020"], "--url goes with --live"),
    ],
)
def test_options_that_exclude_each_other(args: list[str], words: str, runner: CliRunner) -> None:
    result = runner.invoke(main, ["providers", *args])
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_setting_that_cannot_be_read_is_exit_code_2(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PORT", "many")
    for args in (["providers", "--live"], ["serve"], ["check"]):
        result = runner.invoke(main, args)
        assert result.exit_code == 2
        assert result.stderr == "PENSTOCK_PORT: expected a port from 0 to 65535, got 'many'\n"
