"""Alerts to a real HTTP server and a real mail server, which refuse, hang, vanish and come back."""

import asyncio
import hmac
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message

import orjson
import pytest
import trustme
from aiohttp import web

from proxy.core.alert_channel import Channel, Mailbox, MailSecurity, SlackWebhook, Webhook
from proxy.core.backoff import BackoffPolicy
from proxy.core.budget import PROXY, AlertLevel, account_subject
from proxy.core.budget_words import BudgetAlert
from proxy.core.window import Period
from proxy.telemetry import alerts as alerts_module
from proxy.telemetry.alerts import ATTEMPTS_MAX, QUEUE_MAX, Alerts
from proxy.terms import AccountId, NanoUsd
from tests.gateway import RecordingLog, closed_port
from tests.mail_server import MailServer, serving
from tests.stopwatch import Stopwatch

NOW = 1_795_262_400.0
ALERT = BudgetAlert(
    account_subject(AccountId("acme <& co>")),
    Period.DAILY,
    AlertLevel.THRESHOLD,
    NanoUsd(80_500_000_000),
    NanoUsd(1),
    NanoUsd(100_000_000_000),
    1_795_305_600,
    NOW,
)
QUICK = BackoffPolicy(first_s=0.005, factor=1.5, max_s=0.02)


class EventLog(RecordingLog):
    """Events by their message; every fact too, as text: what must not be in it is looked for there."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def event(self, message: str, **facts: object) -> None:
        self.messages.append(message)
        self.text = getattr(self, "text", "") + f"{message} {facts}\n"


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes


@dataclass
class Hooks:
    """A web server. ``statuses``: how the next requests are answered; then 200. ``hang``: it does not answer."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hang: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        if self.hang:
            await asyncio.sleep(30)
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"location": f"{self.url}/elsewhere"} if status == 307 else {})

    async def got(self, count: int) -> list[Received]:
        async with asyncio.timeout(5):
            while len(self.received) < count:
                await asyncio.sleep(0.005)
        return self.received


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    made = Hooks()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def alerting(*channels: Channel, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Alerts, EventLog]]:
    log = EventLog()
    made = Alerts(channels, log, lambda: NOW, random.Random(1), policy=QUICK, tls=tls)
    made.start()
    try:
        yield made, log
    finally:
        await made.close()
        assert not log.bugs


async def told(log: EventLog, message: str) -> None:
    async with asyncio.timeout(5):
        while message not in log.messages:
            await asyncio.sleep(0.005)


# Webhooks.


async def test_a_webhook_gets_a_signed_document(hooks: Hooks) -> None:
    async with alerting(Webhook(f"{hooks.url}/x?token=canary-url", "canary-secret")) as (alerts, log):
        alerts(ALERT)
        (received,) = await hooks.got(1)
    document = orjson.loads(received.body)
    assert document == {
        "id": received.headers["x-penstock-alert-id"],
        "kind": "budget",
        "level": "threshold",
        "subject": "account:acme <& co>",
        "period": "daily",
        "spent_nanousd": 80_500_000_000,
        "held_nanousd": 1,
        "limit_nanousd": 100_000_000_000,
        "spent_usd": "80.50",
        "limit_usd": "100.00",
        "resets_at": "2026-11-22T00:00:00Z",
        "at": "2026-11-21T12:00:00Z",
        "text": "account acme <& co> has spent 80.50 of 100.00 USD (80 %) of its daily budget."
        " It begins anew at 2026-11-22T00:00:00Z.",
    }
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-penstock-timestamp"] == str(int(NOW))
    signed = str(int(NOW)).encode() + b"." + received.body
    assert received.headers["x-penstock-signature"] == "v1=" + hmac.new(b"canary-secret", signed, "sha256").hexdigest()
    assert "canary" not in log.text


async def test_slack_gets_text_without_control_characters(hooks: Hooks) -> None:
    async with alerting(SlackWebhook(hooks.url)) as (alerts, _):
        alerts(ALERT)
        (received,) = await hooks.got(1)
    document = orjson.loads(received.body)
    assert list(document) == ["text"]
    assert document["text"].startswith("account acme &lt;&amp; co&gt; has spent 80.50 of 100.00 USD (80 %)")


async def test_what_fails_for_a_time_is_sent_again_under_the_same_id(hooks: Hooks) -> None:
    hooks.statuses = [500, 503, 429, 408]
    async with alerting(Webhook(hooks.url)) as (alerts, log):
        alerts(ALERT)
        received = await hooks.got(5)
        await asyncio.sleep(0.05)
    assert len(received) == 5
    assert len({one.headers["x-penstock-alert-id"] for one in received}) == 1
    assert log.messages == ["budget alert", *["alert delayed"] * 4]


@pytest.mark.parametrize("status", [400, 401, 404, 307])
async def test_what_is_refused_for_good_is_told_and_not_sent_again(hooks: Hooks, status: int) -> None:
    hooks.statuses = [status]
    async with alerting(Webhook(f"{hooks.url}/canary-path")) as (alerts, log):
        alerts(ALERT)
        await told(log, "alert not delivered")
        alerts(ALERT)
        await hooks.got(2)
    assert len(hooks.received) == 2  # a redirect is not followed
    assert f"it answered {status}" in log.text
    assert "canary" not in log.text


async def test_a_channel_that_is_away_is_given_up_in_the_end() -> None:
    async with alerting(SlackWebhook(f"http://127.0.0.1:{closed_port()}/canary-path")) as (alerts, log):
        alerts(ALERT)
        await told(log, "alert not delivered")
    assert log.messages.count("alert delayed") == ATTEMPTS_MAX - 1
    assert "ClientConnectorError" in log.text
    assert "canary" not in log.text


async def test_a_hanging_channel_blocks_neither_the_loop_nor_the_others(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "CLOSE_S", 0.05)
    hooks.hang = True
    hanging = socket.create_server(("127.0.0.1", 0))  # accepts, says nothing
    box = Mailbox("127.0.0.1", hanging.getsockname()[1], MailSecurity.NONE, "a@b.c", ("d@e.f",))
    async with alerting(Webhook(hooks.url), box) as (alerts, log):
        watch = Stopwatch.patient()
        for _ in range(QUEUE_MAX * 3):
            alerts(ALERT)
        assert watch.spent_s < 0.2
        await hooks.got(1)
        lags = []
        for _ in range(20):
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            lags.append(time.perf_counter() - began)
        assert sorted(lags)[10] < 0.02
        assert log.messages.count("alert dropped: too many wait") == 2 * QUEUE_MAX * 2
    assert log.messages.count("alert not delivered") == 2 * QUEUE_MAX
    hanging.close()


# Mail.


def trusted() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows, and what a client trusts."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def plain_mail() -> Iterator[MailServer]:
    with serving() as server:
        yield server


async def mails(server: MailServer, count: int) -> list[Message]:
    async with asyncio.timeout(5):
        while len(server.mails) < count:
            await asyncio.sleep(0.005)
    return server.mails


def mailbox(server: MailServer, security: MailSecurity, password: str | None = None) -> Mailbox:
    user = None if password is None else "user"
    return Mailbox(
        "127.0.0.1", server.port, security, "p@example.com", ("a@example.com", "b@example.com"), user, password
    )


async def test_a_mail(plain_mail: MailServer) -> None:
    async with alerting(mailbox(plain_mail, MailSecurity.NONE)) as (alerts, _):
        alerts(ALERT)
        (mail,) = await mails(plain_mail, 1)
    assert plain_mail.recipients == [["a@example.com", "b@example.com"]]
    assert mail["subject"] == "Penstock: daily budget of account acme <& co> nearly reached"
    assert mail["date"] == "Sat, 21 Nov 2026 12:00:00 +0000"
    assert str(mail.get_payload()).startswith("account acme <& co> has spent 80.50 of 100.00 USD (80 %)")


async def test_a_mail_over_starttls_with_a_password() -> None:
    server_tls, client_tls = trusted()
    with serving(server_tls, ("user", "canary-password")) as server:
        for password, event in (("canary-wrong", "alert delayed"), ("canary-password", "budget alert")):
            async with alerting(mailbox(server, MailSecurity.STARTTLS, password), tls=client_tls) as (alerts, log):
                alerts(ALERT)
                await told(log, event)
                if password == "canary-wrong":
                    assert "credential refused: 535" in log.text
                    assert not server.mails
                else:
                    await mails(server, 1)
            assert "canary" not in log.text


async def test_no_mail_goes_to_a_server_that_nobody_vouches_for() -> None:
    """Not by STARTTLS either: there is no going on in clear."""
    with serving(trusted()[0], ("user", "canary-password")) as server:
        async with alerting(mailbox(server, MailSecurity.STARTTLS, "canary-password")) as (alerts, log):
            alerts(ALERT)
            await told(log, "alert delayed")
        assert "SSLCertVerificationError" in log.text
        assert not server.mails


async def test_a_mail_that_is_put_off_is_sent_again_and_one_that_is_refused_is_not(plain_mail: MailServer) -> None:
    plain_mail.codes = ["451 later", "421 busy", "554 no"]
    async with alerting(mailbox(plain_mail, MailSecurity.NONE)) as (alerts, log):
        alerts(ALERT)
        await told(log, "alert not delivered")
        assert log.messages.count("alert delayed") == 2
        alerts(ALERT)
        await mails(plain_mail, 1)
    assert "it answered 554" in log.text


async def test_no_name_breaks_out_of_a_header(plain_mail: MailServer) -> None:
    account = account_subject(AccountId("x\r\nBcc: evil@example.com\r\n\r\nhello"))
    alert = BudgetAlert(account, Period.DAILY, AlertLevel.LIMIT, NanoUsd(1), NanoUsd(0), NanoUsd(0), 0, NOW)
    async with alerting(mailbox(plain_mail, MailSecurity.NONE)) as (alerts, _):
        alerts(alert)
        (mail,) = await mails(plain_mail, 1)
    assert mail["bcc"] is None
    assert "hello" in mail["subject"]


async def test_a_reached_budget_says_until_when(hooks: Hooks) -> None:
    alert = BudgetAlert(
        PROXY, Period.MONTHLY, AlertLevel.LIMIT, NanoUsd(10**9), NanoUsd(0), NanoUsd(10**9), 1_796_083_200, NOW
    )
    async with alerting(SlackWebhook(hooks.url)) as (alerts, _):
        alerts(alert)
        (received,) = await hooks.got(1)
    assert orjson.loads(received.body)["text"] == (
        "the whole proxy has spent 1.00 of 1.00 USD (100 %) of its monthly budget. Requests that do not fit any more are"
        " refused (402 budget_exceeded) until 2026-12-01T00:00:00Z."
    )


async def test_a_reload_keeps_the_channels_that_stay_and_ends_those_that_go(hooks: Hooks) -> None:
    """What waits for a channel that stays is delivered; what waits for one that goes is told."""
    stays, goes = Webhook(f"{hooks.url}/stays"), Webhook(f"http://127.0.0.1:{closed_port()}/goes")
    async with alerting(stays, goes) as (alerts, log):
        kept = alerts._lines[0]
        alerts(ALERT)
        comes = Webhook(f"{hooks.url}/comes")
        alerts.follow([comes, stays])
        assert {line.channel for line in alerts._lines} == {stays, comes}
        assert kept in alerts._lines
        await told(log, "alert not delivered")
        assert len(await hooks.got(1)) == 1
        alerts(ALERT)
        assert len(await hooks.got(3)) == 3
        assert "goes" not in log.text
