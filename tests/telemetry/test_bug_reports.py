"""Bugs, told to a real receiver of Sentry's envelopes on the loopback."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from proxy.server.build import BadLog, build_log
from proxy.server.settings import Settings
from proxy.telemetry.bug_reports import REPORTS_MAX, WINDOW_S, BugReports
from tests.gateway import RecordingLog
from tests.stopwatch import Stopwatch

SECRET = "sk-proj-abcdefghijklmnop1234"
PROMPT = "my grandmother's recipe"


class Receiver:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                bodies.append(gzip.decompress(raw) if self.headers.get("content-encoding") == "gzip" else raw)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.server.server_port}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of each envelope the item: its third line."""
        return [orjson.loads(body.split(b"\n")[2]) for body in self.bodies]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def fail(prompt: str, key: str) -> BaseException:
    """An error with another as its cause, both quoting what was said."""
    try:
        look_up(prompt, key)
    except RuntimeError as error:
        return error
    raise AssertionError("it did not fail")


def look_up(prompt: str, key: str) -> None:
    try:
        dict[str, str]()[prompt]
    except KeyError as error:
        raise RuntimeError(f"no {key} for {prompt}") from error


def test_a_bug_is_reported_without_what_was_said(receiver: Receiver) -> None:
    log = RecordingLog()
    reports = BugReports(log, receiver.dsn, "1.2.3")
    reports.bug("req_1", fail(PROMPT, SECRET))
    reports.close()
    (event,) = receiver.events
    assert [one["type"] for one in event["exception"]["values"]] == ["KeyError", "RuntimeError"]
    frames = event["exception"]["values"][1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "look_up"
    assert event["tags"] == {"id": "req_1"}
    assert event["release"] == "penstock@1.2.3"
    sent = b"".join(receiver.bodies)
    assert PROMPT.encode() not in sent
    assert SECRET.encode() not in sent
    assert b'"vars"' not in sent
    assert len(log.bugs) == 1


def test_what_is_no_bug_is_for_the_log_alone(receiver: Receiver) -> None:
    log = RecordingLog()
    reports = BugReports(log, receiver.dsn, "1")
    reports.event("it rains")
    reports.exchange(lambda: {"asked": PROMPT})
    reports.close()
    assert receiver.bodies == []
    assert (len(log.events), len(log.exchanges)) == (1, 1)


def test_a_bug_in_a_hot_place_is_reported_so_often_and_no_more(receiver: Receiver) -> None:
    at = [0.0]
    reports = BugReports(RecordingLog(), receiver.dsn, "1", now=lambda: at[0])
    for _ in range(REPORTS_MAX + 30):
        reports.bug("x", fail("a", "b"))
    at[0] = WINDOW_S
    reports.bug("later", fail("a", "b"))
    reports.close()
    assert len(receiver.events) == REPORTS_MAX + 1


def test_a_receiver_that_is_away_costs_nothing() -> None:
    log = RecordingLog()
    reports = BugReports(log, "http://public@127.0.0.1:9/1", "1")
    watch = Stopwatch.patient()
    reports.bug("x", fail("a", "b"))
    assert watch.spent_s < 0.5
    reports.close()
    assert len(log.bugs) == 1


def test_the_settings_turn_it_on(receiver: Receiver) -> None:
    log = build_log(Settings.of({"SENTRY_DSN": receiver.dsn, "PENSTOCK_LOG": "/dev/null"}))
    log.bug("req_2", fail("a", "b"))
    log.close()
    assert [event["tags"]["id"] for event in receiver.events] == ["req_2"]


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(BadLog, match="SENTRY_DSN is none"):
        build_log(Settings.of({"SENTRY_DSN": "nonsense", "PENSTOCK_LOG": "/dev/null"}))
