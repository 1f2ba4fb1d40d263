"""The processes of a run: how each gateway is started, asked whether it answers, weighed, and ended."""

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from proxy.config.problem import ConfigError
from proxy.config.resolve import parse
from proxy.terms import RouteName

from .wire import ResponseDecoder, chat_request

ROOT: Final = Path(__file__).resolve().parents[2]
START_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 5.0  # a gateway that is asked to end drains first; after this it is killed
POLL_INTERVAL_S: Final = 0.005
ANSWER_DEADLINE_S: Final = 2.0
PR_SET_PDEATHSIG: Final = 1  # prctl(2)
LOG_TAIL_BYTES: Final = 2000

# Nothing of the caller's shell may change what is measured or let a gateway speak to anyone but the upstream.
PASSED_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")

# Priced, and under budgets, as with the file that ships: a server of one's own would cost nothing to price.
PENSTOCK_CONFIG: Final = """\
providers:
  sim:
    like: vllm
    base_url: "http://127.0.0.1:{upstream}/v1"
    allow_private: true
    price: {{"*": {{input: 0.15, output: 0.60}}}}
budgets: {{daily: 1000000, monthly: 9000000}}
routes:
  bench: {{tiers: [sim/penstock-demo]}}
"""

# A route whose answers are kept; left out where the configuration has no such key.
KEPT: Final = "kept"
PENSTOCK_KEEPS: Final = "  kept: {{tiers: [sim/json], cache: {{ttl: 1h}}}}\n"

NGINX_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_buffer_size 1m;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream sim {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://sim;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

LITELLM_CONFIG: Final = """\
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: anything}}
litellm_settings: {{telemetry: false}}
"""


class BenchError(Exception):
    """The run cannot go on; the message says why and shows the end of the log that tells more."""


@dataclass(frozen=True, slots=True)
class GatewayKind:
    """A gateway and how to start it.

    ``command`` is given what ``config`` is formatted with: ``port``, ``upstream`` (its port) and ``directory``.
    ``target_prefix`` stands before the upstream's name in ``model``. ``streams_max`` bounds what it is asked to carry.
    ``keeps`` is what ``config`` says more of a route named `KEPT`, where the gateway knows of such.
    """

    name: str
    executable: str
    command: tuple[str, ...]
    config: str = ""
    target_prefix: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    streams_max: int = 1000
    keeps: str = ""


RELAY: Final = GatewayKind(
    "bare relay", sys.executable, ("{executable}", "-m", "tests.bench.relay", "{port}", "{upstream}")
)
PENSTOCK: Final = GatewayKind(
    "penstock",
    str(Path(sys.executable).with_name("penstock")),
    ("{executable}", "serve", "--host", "127.0.0.1", "--port", "{port}", "--config", "{directory}/config"),
    config=PENSTOCK_CONFIG,
    target_prefix="sim/",
    keeps=PENSTOCK_KEEPS,
)
NGINX: Final = GatewayKind(
    "nginx", "nginx", ("{executable}", "-p", "{directory}", "-c", "{directory}/config"), config=NGINX_CONFIG
)
LITELLM: Final = GatewayKind(
    "litellm",
    "litellm",
    ("{executable}", "--config", "{directory}/config", "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1"),
    config=LITELLM_CONFIG,
    variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it fetches its price list at start
    streams_max=100,  # 1,000 streams are more than it carries on one core: it would measure its queue
)
KINDS: Final = (RELAY, PENSTOCK, NGINX, LITELLM)


@dataclass(slots=True)
class Gateway:
    """A running process that answers, or the upstream itself (``direct``), which has no process to weigh here."""

    name: str
    port: int
    target_prefix: str
    streams_max: int
    process: psutil.Process | None
    log: Path
    first_answer_s: float = 0.0
    keeps: bool = False  # it has a route named `KEPT`

    def cpu_s(self) -> float:
        """User and system time so far, of the process and the children it has now."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def rss_bytes(self) -> int:
        """Pages shared between a process and its children count for each."""
        return round(self._sum(lambda process: process.memory_info().rss))

    def _sum(self, weigh: Callable[[psutil.Process], float]) -> float:
        assert self.process is not None, f"{self.name} has no process to weigh"
        try:
            return sum(map(weigh, [self.process, *self.process.children(recursive=True)]))
        except psutil.NoSuchProcess:
            raise BenchError(
                f"{self.name}, or a child of it, has ended during the run; its log ends:\n{log_tail(self.log)}"
            ) from None


def found(kind: GatewayKind) -> str | None:
    return shutil.which(kind.executable)


def knows_cache() -> bool:
    """Whether this Penstock's configuration has the key `cache`."""
    try:
        table = parse((PENSTOCK_CONFIG + PENSTOCK_KEEPS).format(upstream=1), "config", {})
    except ConfigError:
        return False
    return table.routes[RouteName(KEPT)].cache is not None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def log_tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before exec so that it is asked to end when the harness dies, however that happens."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent_pid = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask


@contextlib.contextmanager
def child(
    command: Sequence[str], log: Path, variables: Mapping[str, str], *, pipes: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A child in the project's root, its log in a file; it and its own children are gone when the context is left."""
    environment = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ} | dict(variables)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=output,
            text=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - the harness has one thread
        )
    with popen:
        try:
            yield popen
        finally:
            _end(popen)


def _end(popen: subprocess.Popen[str]) -> None:
    if popen.poll() is not None:
        return
    children = psutil.Process(popen.pid).children(recursive=True)
    popen.terminate()
    try:
        popen.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        popen.kill()
    for orphan in psutil.wait_procs(children, timeout=1)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan.kill()


@contextlib.contextmanager
def running_upstream(directory: Path) -> Iterator[Gateway]:
    port, log = free_port(), directory / "upstream.log"
    command = (sys.executable, "-m", "tests.bench.upstream", str(port))
    with child(command, log, {}) as popen:
        direct = Gateway("direct", port, "", streams_max=1000, process=None, log=log)
        await_answer(direct, popen, time.monotonic())
        yield direct


@contextlib.contextmanager
def running(kind: GatewayKind, upstream_port: int, directory: Path) -> Iterator[Gateway]:
    """The gateway from its first answer on; ``first_answer_s`` counts from just before the process was made.

    *Errors*: BenchError where it ends early or does not answer in time.
    """
    directory.mkdir(parents=True)
    port, log = free_port(), directory / "log"
    values = {"port": port, "upstream": upstream_port, "directory": directory, "executable": found(kind)}
    keeps = kind.keeps != "" and knows_cache()
    (directory / "config").write_text((kind.config + (kind.keeps if keeps else "")).format(**values))
    command = [word.format(**values) for word in kind.command]
    variables = {"PENSTOCK_DATA": str(directory / "data"), **kind.variables}
    started = time.monotonic()
    with child(command, log, variables) as popen:
        process = psutil.Process(popen.pid)
        gateway = Gateway(kind.name, port, kind.target_prefix, kind.streams_max, process, log, keeps=keeps)
        await_answer(gateway, popen, started)
        gateway.first_answer_s = time.monotonic() - started
        yield gateway


def await_answer(gateway: Gateway, popen: subprocess.Popen[str], started: float) -> None:
    request = chat_request(gateway.port, f"{gateway.target_prefix}json", stream=False)
    last = "nothing listens"
    while time.monotonic() - started < START_DEADLINE_S:
        try:
            status = _status_of(gateway.port, request)
        except OSError as error:
            last = str(error)
        else:
            if status == http.client.OK:
                return
            last = f"status {status}"
        if popen.poll() is not None:
            last = f"it ended with exit code {popen.returncode}"
            break
        time.sleep(POLL_INTERVAL_S)
    raise BenchError(
        f"{gateway.name} did not answer a request with 200: {last}; its log ends:\n{log_tail(gateway.log)}"
    )


def _status_of(port: int, request: bytes) -> int:
    decoder = ResponseDecoder()
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_DEADLINE_S) as connection:
        connection.sendall(request)
        while not decoder.complete:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("the connection ended amid an answer")
            decoder.feed(data)
    return decoder.status
