"""S24, S53, S54: canaries in every form go in wherever something goes in, and none comes out where it may not."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.config.problem import ConfigError
from proxy.config.resolve import parse
from proxy.core import redact
from proxy.edge.admin.shell import AdminKey
from proxy.server.serve import Options, Service, secrets_of
from proxy.server.settings import BadSettings, Settings
from proxy.telemetry.logs import Log
from tests.canaries.forms import COMPLETION, KNOWN, PROMPT, SHAPED, found
from tests.edge.doorway import ask
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Answer, Connection

CREDENTIAL, ADMIN_KEY = KNOWN["credential"], KNOWN["admin key"]
WITH_KEY = {"x-api-key": ADMIN_KEY}
READS = (
    "/admin/analytics/summary",
    "/admin/analytics/forecast",
    "/admin/audit",
    "/admin/breakers",
    "/admin/budgets",
    "/admin/cache",
    "/admin/config",
    "/admin/ledger?limit=1000",
    "/admin/providers",
    "/admin/routes",
)
EVERY = [*SHAPED.values(), *KNOWN.values(), PROMPT, COMPLETION]
SAYS = orjson.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": COMPLETION}}]})


class Stage:
    """A whole server with its own log, before an upstream that answers what it is told."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.folder, self.recorder = folder, recorder
        self.log_file = folder / "stdout.log"
        self.answers: list[Answer] = []  # what clients got that sent no canary themselves

    async def start(self) -> None:
        url = await self.recorder.start()
        table = parse(
            f'providers: {{sim: {{like: openai, base_url: "{url}", api_key: env:K}}}}\n'
            "defaults: {retry: {attempts: 1}}\nroutes: {plain: {tiers: [sim/m], cache: {ttl: 1h}}}\n",
            "routes.yaml",
            {"K": CREDENTIAL},
        )
        settings = Settings(data=self.folder / "data", admin_key=ADMIN_KEY)
        self.stream = self.log_file.open("w")
        self.log = Log(self.stream)
        self.log.hide(secrets_of(settings))
        options = Options(Path("routes.yaml"), port=0, drain_s=0.2)
        self.service = Service(options, settings, table, self.log, admin_key=AdminKey(ADMIN_KEY))
        await self.service.start()

    async def post(self, body: bytes, headers: dict[str, str], path: str = CHAT) -> Answer:
        return await ask(self.service.port, path, headers, method="POST", body=body)

    async def raw(self, data: bytes) -> None:
        connection = await Connection.open(self.service.port)
        connection.writer.write(data)
        await connection.answer()
        await connection.close()

    def innocent(self) -> None:
        """Forget what is remembered against the target."""
        assert self.service._stores is not None
        self.service._stores.breakers.reset(None, time.time())

    async def sinks(self) -> dict[str, bytes]:
        """Everything that others than the sender see."""
        port = self.service.port
        async with asyncio.timeout(5):
            while b'"api":"chat"' not in (await ask(port, "/admin/ledger", WITH_KEY)).raw:
                await asyncio.sleep(0.02)
        told = {path: await ask(port, path, WITH_KEY) for path in READS}
        told["/health"] = await ask(port, "/health")
        told["/v1/models"] = await ask(port, "/v1/models")
        assert all(one.status in (200, 503) for one in told.values()), {path: one.status for path, one in told.items()}
        assert b'"api":"chat"' in told["/admin/ledger?limit=1000"].raw
        seen = {path: one.raw for path, one in told.items()}
        journals = [path for path in (self.folder / "data").rglob("*") if path.is_file() and path.suffix != ".key"]
        seen |= {f"file {path.name}": path.read_bytes() for path in journals}
        await self.stop()
        seen["log"] = self.log_file.read_bytes()
        assert b'"kind":"exchange"' in seen["log"]
        return seen | {f"answer {number}": one.raw for number, one in enumerate(self.answers)}

    async def stop(self) -> None:
        await self.service.stop()
        self.log.close()
        self.stream.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    recorder = Recorder(lambda _: answer(200, SAYS, "content-type: application/json"))
    made = Stage(tmp_path, recorder)
    await made.start()
    yield made
    if made.service._stores is not None:
        await made.stop()
    await recorder.stop()


def is_clean(sinks: dict[str, bytes]) -> None:
    hits = {name: seen for name, raw in sinks.items() if (seen := found(raw, EVERY))}
    assert not hits


def chat(**members: object) -> bytes:
    return orjson.dumps({"model": "plain", "messages": [{"role": "user", "content": PROMPT}], **members})


async def test_s53_s54_what_clients_send_is_in_no_sink(stage: Stage) -> None:
    for number, canary in enumerate(SHAPED.values()):
        name = quote(canary, safe="")
        headers = {
            "authorization": canary if canary.startswith(("Bearer", "Basic")) else f"Bearer {canary}",
            "cookie": f"session={canary}",
            "user-agent": canary,
            "x-request-id": canary,
            "x-penstock-tags": f"team={canary},run={number}",
            "x-forwarded-for": canary,
            "x-odd": canary,
        }
        assert (await stage.post(chat(user=canary, metadata={"k": canary}), headers)).status == 200
        assert (await stage.post(chat(model=f"sim/{canary}"), headers)).status == 200
        for body in (
            chat(model=canary),
            chat(stream=canary),
            chat(n=canary),
            canary.encode(),
            chat(stream_options=canary),
        ):
            assert (await stage.post(body, headers)).status in (200, 400, 404)
        tier = {"x-penstock-tier": canary, "x-penstock-timeout": canary, "x-penstock-provider": canary}
        for one, value in tier.items():
            await stage.post(chat(), {one: value})
        for path in (f"/v1/{name}", f"/v1/models/{name}", f"/v1/models?x={name}", f"/{name}", f"/health?{name}"):
            await ask(stage.service.port, path, headers)
        await stage.raw(f"GET /x?{canary} HTTP/9.9\r\n{canary}: x\r\n\r\n".encode())
    sinks = await stage.sinks()
    is_clean(sinks)
    assert redact.MASK.encode() in sinks["log"], "they were looked for where they could have been"


def _saying(status: int, body: bytes, canary: str) -> Callable[[int], bytes]:
    more = (f"x-request-id: {canary}", f"x-odd: {canary}", f"set-cookie: k={canary}", f"retry-after: {canary}")
    return lambda _: answer(status, body, "content-type: application/json", *more)


async def test_s24_s53_what_a_provider_says_is_in_no_sink(stage: Stage) -> None:
    """The client sent no canary here, so its own answers are a sink too."""
    for canary in (*SHAPED.values(), CREDENTIAL):
        said = orjson.dumps(
            {"error": {"message": f"Incorrect key: {canary}.", "type": canary, "code": canary, "param": canary}}
        )
        odd = f"<html>{canary}</html>".encode()
        for status, body in ((400, said), (401, said), (403, odd), (429, said), (500, odd), (200, said)):
            stage.innocent()
            stage.recorder.answers = _saying(status, body, canary)
            stage.answers.append(await stage.post(chat(stream=status == 200), {"cache-control": "no-cache"}))
    is_clean(await stage.sinks())


async def test_s24_no_credential_of_a_client_reaches_a_provider(stage: Stage) -> None:
    for canary in SHAPED.values():
        headers = dict.fromkeys(("authorization", "x-api-key", "cookie", "x-odd", "proxy-authorization"), canary)
        headers.pop("x-api-key")
        await stage.post(chat(), headers)
        await stage.post(chat(), {"x-api-key": canary})
    assert stage.recorder.received
    for request in stage.recorder.received:
        assert not found(request.line + repr(request.headers), list(SHAPED.values()))
        assert request.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert not found((await stage.sinks())["/admin/ledger?limit=1000"], EVERY)


async def test_s53_what_the_admin_api_is_sent_is_in_no_sink(stage: Stage) -> None:
    await stage.post(chat(), {})
    for canary in SHAPED.values():
        name = quote(canary, safe="")
        for path in ("/admin/breakers/reset", "/admin/cache/invalidate", "/admin/cache/warm", f"/admin/{name}"):
            for body in ({"target": canary}, {"route": canary}, {"requests": [canary]}, {canary: canary}):
                await ask(stage.service.port, path, WITH_KEY, method="POST", body=orjson.dumps(body))
        await ask(stage.service.port, f"/admin/ledger/{name}", {**WITH_KEY, "x-request-id": canary})
        await ask(stage.service.port, f"/admin/audit?actor={name}", {"x-api-key": canary, "x-request-id": canary})
    is_clean(await stage.sinks())


def _fail(canary: str) -> None:
    try:
        int(canary)
    except ValueError as error:
        raise RuntimeError(f"while {canary!r}") from error


async def test_s53_bugs_and_events_are_masked_as_they_are_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        for readable in (False, True):
            log = Log(stream, readable=readable)
            log.hide(KNOWN.values())
            for canary in (*SHAPED.values(), *KNOWN.values()):
                try:
                    _fail(canary)
                except RuntimeError as error:
                    log.bug(canary, error)
                log.event(f"it said {canary}", why=canary, more={"deep": [canary]})
            log.close()
    written = (tmp_path / "log").read_text()
    assert written.count("Traceback") >= 2 * len(SHAPED)
    assert not found(written, EVERY)
    lines = [line for line in written.splitlines() if line.startswith('{"ts"')]
    assert all(orjson.loads(line) for line in lines), "a mask breaks no line"
    assert len(lines) >= 2 * len(SHAPED)


def test_s53_wrong_settings_quote_no_secret(tmp_path: Path) -> None:
    for canary in SHAPED.values():
        told: list[str] = []
        for variable in ("PENSTOCK_PORT", "PENSTOCK_ADMIN_PORT"):
            with pytest.raises(BadSettings) as bad:
                Settings.of({variable: canary})
            told.append(str(bad.value))
        for text in (
            f"providers: {{openai: {{api_key: {orjson.dumps(canary).decode()}}}}}",
            f"providers: {{x: {{like: openai, base_url: {orjson.dumps(canary).decode()}}}}}",
            f"routes: {{r: {{tiers: [{orjson.dumps(canary).decode()}]}}}}",
            f"routes: {{r: {{ttl: {orjson.dumps(canary).decode()}}}}}",
            f"{orjson.dumps(canary).decode()}: 1",
        ):
            try:
                parse(text, "routes.yaml", {})
            except ConfigError as error:
                told.append(str(error))
        runner = CliRunner(
            env={"DATABASE_URL": canary, "REDIS_URL": canary, "PENSTOCK_DATA": str(tmp_path), "PENSTOCK_URL": canary}
        )
        for args in (["ledger", "show", "x"], ["audit", "verify"], ["breakers", "status"]):
            answered = runner.invoke(main, args)
            assert answered.exit_code != 0
            told += [answered.output]
        assert told
        assert not [text for text in told if found(text, [canary])]


@pytest.fixture(autouse=True)
def no_library_tells(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody reads Python's own loggers, but a library that tells them everything would one day be read."""
    caplog.set_level(logging.INFO)
    yield
    assert not found(caplog.text, EVERY)
