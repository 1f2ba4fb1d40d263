"""The section `alerts`: where an operator is told that a budget is nearly or wholly spent.

    alerts:
      - {to: webhook, url: env:ALERT_URL, secret: env:ALERT_SECRET}
      - {to: slack, url: env:SLACK_WEBHOOK_URL}
      - {to: mail, host: smtp.example.com, from: penstock@example.com, recipients: [ops@example.com],
         username: env:SMTP_USER, password: env:SMTP_PASSWORD}

An address that is a credential (a Slack URL is one) stands in the environment, like every other.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from proxy.config.address import is_loopback, refusal
from proxy.config.problem import Path
from proxy.config.section import Section, invalid
from proxy.core.alert_channel import Channel, Mailbox, MailSecurity, SlackWebhook, Webhook

_REFERENCE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
_USUAL_PORTS: Final = {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}
CHANNELS_MAX: Final = 20


def _reference(value: object) -> str:
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        # What stands here may be a credential: it is never quoted.
        raise invalid(
            "expected a reference env:NAME to an environment variable. A credential never stands in this file"
        )
    return match[1]


def _address(value: object) -> str:
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        return value
    raise invalid("expected a mail address such as ops@example.com")


Reference = Annotated[
    str,
    BeforeValidator(_reference),
    WithJsonSchema({"type": "string", "pattern": f"^{_REFERENCE.pattern}$", "examples": ["env:ALERT_URL"]}),
]
Address = Annotated[
    str,
    BeforeValidator(_address),
    WithJsonSchema({"type": "string", "format": "email", "examples": ["ops@example.com"]}),
]


class WebhookEntry(Section):
    """A JSON document by POST, signed."""

    to: Literal["webhook"]
    url: Reference = Field(description="The environment variable with the URL: env:NAME.")
    secret: Reference | None = Field(
        default=None, description="The environment variable with the secret that signs: HMAC-SHA256 with a timestamp."
    )
    allow_private: bool = Field(default=False, description="Lets the URL be plain http, or in a private network.")


class SlackEntry(Section):
    """Slack, or whatever takes its {"text": ...}."""

    to: Literal["slack"]
    url: Reference = Field(description="The environment variable with the webhook's URL: env:NAME.")
    allow_private: bool = Field(default=False, description="Lets the URL be plain http, or in a private network.")


class MailEntry(Section):
    """A mail by SMTP."""

    to: Literal["mail"]
    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,254}$", description="The mail server.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Its port; 587, or 465 with security: tls.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none sends in clear: to this machine only, and without a password."
    )
    sender: Address = Field(alias="from", description="Who the mail is from.")
    recipients: list[Address] = Field(min_length=1, max_length=20, description="Who gets it.")
    username: Reference | None = Field(default=None, description="The environment variable with the user's name.")
    password: Reference | None = Field(default=None, description="The environment variable with the password.")


def _form(value: object) -> str | None:
    return value.get("to") if isinstance(value, dict) else getattr(value, "to", None)


Entry = Annotated[
    Annotated[WebhookEntry, Tag("webhook")] | Annotated[SlackEntry, Tag("slack")] | Annotated[MailEntry, Tag("mail")],
    Discriminator(
        _form,
        custom_error_type="invalid",
        custom_error_message="expected to: webhook, slack or mail",
    ),
]
Entries = Annotated[list[Entry], Field(max_length=CHANNELS_MAX)]


def channels(
    entries: list[WebhookEntry | SlackEntry | MailEntry], environ: Mapping[str, str]
) -> tuple[list[Channel], list[tuple[Path, str]]]:
    """The channels, and what is wrong with those that cannot be used: where, and why, without a credential."""
    made: list[Channel] = []
    wrong: list[tuple[Path, str]] = []
    for index, entry in enumerate(entries):
        found = list(_problems(entry, environ))
        wrong += [(("alerts", index, *path), why) for path, why in found]
        if not found:
            made.append(_channel(entry, environ))
    return made, wrong


def _channel(entry: WebhookEntry | SlackEntry | MailEntry, environ: Mapping[str, str]) -> Channel:
    def value(name: str | None) -> str | None:
        return None if name is None else environ[name].strip()

    match entry:
        case WebhookEntry():
            return Webhook(environ[entry.url].strip(), value(entry.secret))
        case SlackEntry():
            return SlackWebhook(environ[entry.url].strip())
        case MailEntry():
            security = MailSecurity(entry.security)
            port = entry.port or _USUAL_PORTS[security]
            recipients = tuple(entry.recipients)
            username, password = value(entry.username), value(entry.password)
            return Mailbox(entry.host, port, security, entry.sender, recipients, username, password)


def _problems(
    entry: WebhookEntry | SlackEntry | MailEntry, environ: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key in ("url", "secret", "username", "password"):
        name = getattr(entry, key, None)
        if name is not None and not environ.get(name, "").strip():
            yield (key,), f"{name} is not set"
            return
    if isinstance(entry, MailEntry):
        if (entry.username is None) != (entry.password is None):
            yield (), "needs both username and password, or neither"
        if entry.security == "none" and (entry.password is not None or not is_loopback(entry.host)):
            yield ("security",), "none sends in clear: it is for a server on this machine, and without a password"
    else:
        why = _url_refusal(environ[entry.url].strip(), allow_private=entry.allow_private)
        if why is not None:
            yield ("url",), f"{entry.url}: {why}"


def _url_refusal(url: str, *, allow_private: bool) -> str | None:
    if "#" in url:
        return "a webhook's URL has no fragment"
    # A webhook may carry its credential in the query; everything else is as for a provider.
    return refusal(url.partition("?")[0], allow_private=allow_private)
