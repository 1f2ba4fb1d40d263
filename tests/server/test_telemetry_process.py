"""Metrics and the log of `penstock serve` in a process of its own."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import orjson

from tests.edge.doorway import ask
from tests.gateway import CHAT, send
from tests.server.process import config_file, serving


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def awaited(path: Path, message: str) -> dict[str, Any]:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for line in lines(path):
            if line.get("message") == message:
                return line
        time.sleep(0.02)
    raise AssertionError(f"{message!r} is not in {lines(path)}")


async def test_metrics_on_a_port_of_their_own_and_a_log_that_is_rotated_by_renaming(tmp_path: Path) -> None:
    path = tmp_path / "penstock.log"
    environ = {"PENSTOCK_LOG": str(path), "PENSTOCK_LOG_BYTES": "0", "PENSTOCK_DATA": str(tmp_path / "data")}
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/gpt-4o-mini]}}")
    with serving("--config", config, "--demo", "--metrics-port", "0", environ=environ) as (process, port, _):
        told = awaited(path, "/metrics has a port of its own")
        assert told["host"] == "127.0.0.1"
        assert (await send(port, CHAT, b'{"model":"general","messages":[]}')).status == 200
        shown = (await ask(told["port"], "/metrics")).body
        assert b'penstock_requests_total{api="chat",outcome="ok",route="general",status="200"} 1.0' in shown
        assert os.stat(path).st_mode & 0o007 == 0  # noqa: PTH116 - as others see it
        old = path.rename(tmp_path / "penstock.log.old")
        time.sleep(1.1)  # the file is looked for once a second
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert [line["route"] for line in lines(old) if line["kind"] == "exchange"] == ["general"]
    assert "draining" in [line.get("message") for line in lines(path)]


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    environ = {"PENSTOCK_LOG": str(tmp_path / "nowhere/log"), "PENSTOCK_DATA": str(tmp_path / "data")}
    config = config_file(tmp_path, "routes: {}")
    try:
        with serving("--config", config, "--demo", environ=environ):
            raise RuntimeError("it started")
    except AssertionError as refused:
        assert "PENSTOCK_LOG" in str(refused)  # noqa: PT017 - that it did not start is what is looked for
