"""Where alerts go: the channels, without what they are sent."""

import hmac
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Webhook:
    """A JSON document by POST, signed with ``secret`` where there is one. The URL may itself be a credential."""

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SlackWebhook:
    """``{"text": ...}`` by POST: Slack, Mattermost, Rocket.Chat, Google Chat. The URL is a credential."""

    url: str = field(repr=False)


class MailSecurity(Enum):
    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mail by SMTP."""

    host: str
    port: int
    security: MailSecurity
    sender: str
    recipients: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)


Channel = Webhook | SlackWebhook | Mailbox


def named(channel: Channel) -> str:
    """A channel in a log, without its credentials."""
    match channel:
        case Webhook():
            return "webhook"
        case SlackWebhook():
            return "slack webhook"
        case Mailbox():
            return f"mail by {channel.host}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over ``<timestamp>.<body>``, so that a document cannot be sent again with another time."""
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()
