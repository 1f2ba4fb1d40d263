"""Delivers alerts: to webhooks, and by mail. Nothing that serves a request ever waits for it.

Each channel has a queue and a task of its own, so that one that is away keeps no other waiting. A delivery is tried
again, backed off, for about an hour; a queue that is full drops its oldest. An alert that a channel refuses for good, or
that was given up, is told in the log, without address or credential.
"""

import asyncio
import random
import smtplib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from typing import Final
from uuid import uuid4

import aiohttp
import orjson

from proxy.core import backoff
from proxy.core.alert_channel import Channel, Mailbox, MailSecurity, SlackWebhook, Webhook, named, signature
from proxy.core.backoff import BackoffPolicy
from proxy.core.budget_words import BudgetAlert, document, headline, sentence, slack_text
from proxy.ports import ExchangeLog

QUEUE_MAX: Final = 100
ATTEMPTS_MAX: Final = 10
BACKOFF: Final = BackoffPolicy(first_s=1.0, factor=3.0, max_s=600.0)
ATTEMPT_S: Final = 10.0
CLOSE_S: Final = 1.0  # for what is under way when the process ends
TEMPORARY: Final = frozenset({408, 425, 429})  # and all from 500


@dataclass(frozen=True, slots=True)
class _Refused:
    """It did not work; ``final``: nor would it later."""

    why: str
    final: bool = False


@dataclass(slots=True)
class _Line:
    """One channel's queue."""

    channel: Channel
    waiting: deque[tuple[str, BudgetAlert]] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Alerts:
    """An `AlertSink`. One per process; made, started and closed in its event loop.

    Several processes have one each: the store of the books sees to it that one of them is told of an alert.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        log: ExchangeLog,
        wall: Callable[[], float],
        rng: random.Random,
        *,
        policy: BackoffPolicy = BACKOFF,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._lines = [_Line(channel) for channel in channels]
        for line in self._lines:
            line.idle.set()
        self._log = log
        self._wall = wall
        self._policy = policy
        self._tls = tls
        self._rng = rng
        self._session: aiohttp.ClientSession | None = None

    def __call__(self, alert: BudgetAlert, /) -> None:
        self._log.event("budget alert", told=sentence(alert))
        alert_id = uuid4().hex
        for line in self._lines:
            if len(line.waiting) >= QUEUE_MAX:
                line.waiting.popleft()
                self._log.event("alert dropped: too many wait", channel=named(line.channel))
            line.waiting.append((alert_id, alert))
            line.idle.clear()
            line.filled.set()

    def start(self) -> None:
        for line in self._lines:
            self._start(line)

    def follow(self, channels: Sequence[Channel]) -> None:
        """Deliver to these from now on. What waits for one that is no more is told in the log; others go on."""
        kept = [line for line in self._lines if line.channel in channels]
        for line in self._lines:
            if line not in kept:
                self._retire(line)
        known = [line.channel for line in kept]
        added = [_Line(channel) for channel in channels if channel not in known]
        self._lines = [*kept, *added]
        for line in added:
            line.idle.set()
            self._start(line)

    def _retire(self, line: _Line) -> None:
        if line.task is not None:
            line.task.cancel()
        for _, alert in line.waiting:
            self._log.event("alert not delivered", channel=named(line.channel), told=sentence(alert))

    async def close(self) -> None:
        """What is not delivered within `CLOSE_S` is told in the log."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for line in self._lines:
                    await line.idle.wait()
        tasks = [line.task for line in self._lines if line.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._lines:
            for _, alert in line.waiting:
                self._log.event("alert not delivered", channel=named(line.channel), told=sentence(alert))
        if self._session is not None:
            await self._session.close()

    def _start(self, line: _Line) -> None:
        line.task = asyncio.create_task(self._deliver_all(line))
        line.task.add_done_callback(partial(self._ended, line))

    def _ended(self, line: _Line, task: asyncio.Task[None]) -> None:
        """It ends only when it is cancelled: otherwise that is a bug, and the next alert is tried without this one."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("alerts", error)
            line.waiting.popleft()
            self._start(line)

    async def _deliver_all(self, line: _Line) -> None:
        while True:
            while line.waiting:
                item = line.waiting[0]
                await self._deliver(line.channel, *item)
                if line.waiting and line.waiting[0] is item:  # else it was dropped meanwhile
                    line.waiting.popleft()
            line.filled.clear()
            line.idle.set()
            await line.filled.wait()

    async def _deliver(self, channel: Channel, alert_id: str, alert: BudgetAlert) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            refused = await self._attempt(channel, alert_id, alert)
            if refused is None:
                return
            if refused.final or attempt == ATTEMPTS_MAX:
                self._log.event("alert not delivered", channel=named(channel), why=refused.why, told=sentence(alert))
                return
            self._log.event("alert delayed", channel=named(channel), why=refused.why, attempt=attempt)
            await asyncio.sleep(backoff.delay(attempt, self._policy, self._rng))

    async def _attempt(self, channel: Channel, alert_id: str, alert: BudgetAlert) -> _Refused | None:
        match channel:
            case Webhook():
                body = orjson.dumps(document(alert, alert_id))
                timestamp = str(int(self._wall()))
                headers = {"x-penstock-alert-id": alert_id, "x-penstock-timestamp": timestamp}
                if channel.secret is not None:
                    headers["x-penstock-signature"] = signature(channel.secret, timestamp, body)
                return await self._post(channel.url, body, headers)
            case SlackWebhook():
                return await self._post(channel.url, orjson.dumps({"text": slack_text(alert)}), {})
            case Mailbox():
                message = _mail(channel, alert, alert_id, self._wall())
                return await _in_thread(lambda: _send(channel, message, self._tls))

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> _Refused | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=aiohttp.ClientTimeout(total=ATTEMPT_S)
            )
        given = {"content-type": "application/json", "user-agent": "penstock", **headers}
        tls = True if self._tls is None else self._tls
        try:
            # A redirect would take the document, and a URL that is a credential, to another place.
            async with self._session.post(url, data=body, headers=given, allow_redirects=False, ssl=tls) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Refused(type(error).__name__)  # its text would name the URL
        if 200 <= status < 300:
            return None
        return _Refused(f"it answered {status}", final=status < 500 and status not in TEMPORARY)


def _mail(box: Mailbox, alert: BudgetAlert, alert_id: str, at: float) -> EmailMessage:
    message = EmailMessage()
    message["From"] = box.sender
    message["To"] = ", ".join(box.recipients)
    message["Subject"] = "".join(letter for letter in headline(alert) if letter.isprintable())
    message["Date"] = format_datetime(datetime.fromtimestamp(at, UTC))
    message["Message-ID"] = f"<{alert_id}@penstock.invalid>"  # the same when it is sent again
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(sentence(alert) + "\n")
    return message


def _send(box: Mailbox, message: EmailMessage, tls: ssl.SSLContext | None) -> _Refused | None:
    """One mail, in a thread. Errors: never raises what a mail server may cause."""
    context = tls or ssl.create_default_context()
    try:
        if box.security is MailSecurity.TLS:
            connection: smtplib.SMTP = smtplib.SMTP_SSL(box.host, box.port, timeout=ATTEMPT_S, context=context)
        else:
            connection = smtplib.SMTP(box.host, box.port, timeout=ATTEMPT_S)
        with connection:
            if box.security is MailSecurity.STARTTLS:
                connection.starttls(context=context)
            if box.username is not None and box.password is not None:
                connection.login(box.username, box.password)
            connection.send_message(message, box.sender, box.recipients)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        return _Refused(f"recipients refused: {codes}", final=min(codes) >= 500)
    except smtplib.SMTPAuthenticationError as error:
        return _Refused(f"credential refused: {error.smtp_code}")  # it may be put right while this waits
    except smtplib.SMTPResponseException as error:
        return _Refused(f"it answered {error.smtp_code}", final=error.smtp_code >= 500)
    except (smtplib.SMTPException, OSError) as error:
        return _Refused(type(error).__name__)
    return None


async def _in_thread(work: Callable[[], _Refused | None]) -> _Refused | None:
    """In a daemon thread: a mail server that hangs keeps neither the loop nor the end of the process waiting."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Refused | None] = loop.create_future()

    def tell(result: _Refused | None) -> None:
        if not done.done():
            done.set_result(result)

    def run() -> None:
        result: _Refused | None = _Refused("it could not be sent: a bug", final=True)
        try:
            result = work()
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="mail", daemon=True).start()
    return await done
