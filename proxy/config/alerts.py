"""The section `alerts`: where an operator is told that a budget is nearly or wholly spent.

    alerts:
      - {to: webhook, url: env:ALERT_URL, secret: env:ALERT_SECRET}
      - {to: slack, url: env:SLACK_WEBHOOK_URL}
      - {to: mail, host: smtp.example.com, from: penstock@example.com, recipients: [ops@example.com],
         username: env:SMTP_USER, password: env:SMTP_PASSWORD}

An address that is a credential (a Slack URL is one) stands in the environment, like every other.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, WithJsonSchema

from proxy.config.address import is_loopback, refusal
from proxy.config.problem import Path
from proxy.config.scalars import EnvReference, Port
from proxy.config.section import Section, invalid, shown
from proxy.core.alert_channel import Channel, Mailbox, MailSecurity, SlackWebhook, Webhook

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
_USUAL_PORTS: Final = {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}
_SECURITIES: Final = tuple(security.value for security in MailSecurity)
_HOST: Final = r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}"
CHANNELS_MAX: Final = 20
RECIPIENTS_MAX: Final = 20


def _address(value: object) -> str:
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        return value
    raise invalid(f"expected a mail address such as ops@example.com, got {shown(value)}")


def _host(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_HOST, value):
        return value
    raise invalid(f"expected the name of a mail server such as smtp.example.com, got {shown(value)}")


def _security(value: object) -> str:
    if isinstance(value, str) and value in _SECURITIES:
        return value
    raise invalid(f"expected {', '.join(_SECURITIES[:-1])} or {_SECURITIES[-1]}, got {shown(value)}")


Address = Annotated[
    str,
    BeforeValidator(_address),
    WithJsonSchema({"type": "string", "format": "email", "examples": ["ops@example.com"]}),
]


Host = Annotated[
    str,
    BeforeValidator(_host),
    WithJsonSchema({"type": "string", "pattern": f"^{_HOST}$", "examples": ["smtp.example.com"]}),
]
Security = Annotated[
    Literal["starttls", "tls", "none"],
    BeforeValidator(_security),
    WithJsonSchema({"type": "string", "enum": list(_SECURITIES)}),
]


class WebhookEntry(Section):
    """A JSON document by POST, signed."""

    to: Literal["webhook"] = Field(description="What kind of channel it is.")
    url: EnvReference = Field(description="The environment variable with the URL: env:NAME.")
    secret: EnvReference | None = Field(
        default=None, description="The environment variable with the secret that signs: HMAC-SHA256 with a timestamp."
    )
    allow_private: bool = Field(default=False, description="Lets the URL be plain http, or in a private network.")


class SlackEntry(Section):
    """Slack, or whatever takes its {"text": ...}."""

    to: Literal["slack"] = Field(description="What kind of channel it is.")
    url: EnvReference = Field(description="The environment variable with the webhook's URL: env:NAME.")
    allow_private: bool = Field(default=False, description="Lets the URL be plain http, or in a private network.")


class MailEntry(Section):
    """A mail by SMTP."""

    to: Literal["mail"] = Field(description="What kind of channel it is.")
    host: Host = Field(description="The mail server.")
    port: Port | None = Field(default=None, description="Its port; 587, or 465 with security: tls.")
    security: Security = Field(
        default="starttls", description="none sends in clear: to this machine only, and without a password."
    )
    sender: Address = Field(alias="from", description="Who the mail is from.")
    recipients: list[Address] = Field(min_length=1, max_length=RECIPIENTS_MAX, description="Who gets it.")
    username: EnvReference | None = Field(default=None, description="The environment variable with the user's name.")
    password: EnvReference | None = Field(default=None, description="The environment variable with the password.")


AnyEntry = WebhookEntry | SlackEntry | MailEntry
_FORMS: Final[Mapping[str, type[AnyEntry]]] = {"webhook": WebhookEntry, "slack": SlackEntry, "mail": MailEntry}


def _form(value: object) -> str | None:
    named = value.get("to") if isinstance(value, dict) else getattr(value, "to", None)
    return named if isinstance(named, str) else None


def entry_at(value: object) -> type[AnyEntry] | None:
    """Which section a mapping in `alerts` is; None where its `to` says none."""
    return _FORMS.get(_form(value) or "")


Entry = Annotated[
    Annotated[WebhookEntry, Tag("webhook")] | Annotated[SlackEntry, Tag("slack")] | Annotated[MailEntry, Tag("mail")],
    Discriminator(
        _form,
        custom_error_type="invalid",
        custom_error_message="expected a mapping with to: webhook, to: slack or to: mail",
    ),
]
Entries = Annotated[list[Entry], Field(max_length=CHANNELS_MAX)]


def channels(entries: Iterable[AnyEntry], environ: Mapping[str, str]) -> tuple[Channel, ...]:
    """The channels, in the order of the file; those that `problems` tells of are left out."""
    return tuple(_channel(entry, environ) for entry in entries if not any(_problems(entry, environ)))


def problems(data: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Why channels cannot be used, in a document whose shape may still be wrong: where, and why, without a credential."""
    entries = data.get("alerts")
    for index, given in enumerate(entries if isinstance(entries, list) else ()):
        entry = _valid(given)
        for path, why in () if entry is None else _problems(entry, environ):
            yield ("alerts", index, *path), why


def _valid(given: object) -> AnyEntry | None:
    form = entry_at(given)
    try:
        return None if form is None else form.model_validate(given)
    except ValidationError:  # told as an error of shape
        return None


def _channel(entry: AnyEntry, environ: Mapping[str, str]) -> Channel:
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


def _problems(entry: AnyEntry, environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
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
