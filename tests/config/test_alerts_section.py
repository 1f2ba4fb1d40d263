"""The section `alerts`: credentials by reference alone, and what is told of channels that cannot be used."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config.alerts import Entries, channels, problems
from proxy.config.read import read
from proxy.core.alert_channel import Mailbox, MailSecurity, SlackWebhook, Webhook

ADAPTER: TypeAdapter[Any] = TypeAdapter(Entries)
ENVIRON = {
    "HOOK": "https://hooks.example.com/x?sig=canary-query",
    "SECRET": "canary-secret",
    "SLACK": "https://hooks.slack.example/services/canary-path",
    "LOCAL": "http://127.0.0.1:9/x",
    "PRIVATE": "http://10.0.0.5/x",
    "USER": "u",
    "PASSWORD": "canary-password",
    "EMPTY": " ",
}
MAIL = "to: mail, host: smtp.example.com, from: penstock@example.com, recipients: [ops@example.com]"


def entries(text: str) -> Any:
    return ADAPTER.validate_python(read(text, "routes.yaml").data)


def told(text: str) -> list[object]:
    return list(problems({"alerts": read(text, "routes.yaml").data}, ENVIRON))


def test_every_kind_of_channel() -> None:
    text = f"""
- {{to: webhook, url: env:HOOK, secret: env:SECRET}}
- {{to: webhook, url: env:LOCAL}}
- {{to: slack, url: env:SLACK}}
- {{{MAIL}, username: env:USER, password: env:PASSWORD}}
- {{{MAIL}, security: tls}}
- {{to: mail, host: localhost, from: a@b.c, recipients: [d@e.f], security: none, port: 1025}}
"""
    made = channels(entries(text), ENVIRON)
    assert told(text) == []
    sender, ops = "penstock@example.com", ("ops@example.com",)
    assert made == (
        Webhook(ENVIRON["HOOK"], "canary-secret"),
        Webhook(ENVIRON["LOCAL"]),
        SlackWebhook(ENVIRON["SLACK"]),
        Mailbox("smtp.example.com", 587, MailSecurity.STARTTLS, sender, ops, "u", "canary-password"),
        Mailbox("smtp.example.com", 465, MailSecurity.TLS, sender, ops),
        Mailbox("localhost", 1025, MailSecurity.NONE, "a@b.c", ("d@e.f",)),
    )
    assert "canary" not in repr(made)


@pytest.mark.parametrize(
    ("entry", "path", "why"),
    [
        ("to: webhook, url: env:UNSET", ("url",), "UNSET is not set"),
        ("to: webhook, url: env:HOOK, secret: env:EMPTY", ("secret",), "EMPTY is not set"),
        (
            "to: slack, url: env:PRIVATE",
            ("url",),
            "PRIVATE: host '10.0.0.5' is private. Add allow_private: true if that is meant",
        ),
        (f"{MAIL}, username: env:USER", (), "needs both username and password, or neither"),
        (
            f"{MAIL}, security: none",
            ("security",),
            "none sends in clear: it is for a server on this machine, and without a password",
        ),
    ],
)
def test_a_channel_that_cannot_be_used(entry: str, path: tuple[str, ...], why: str) -> None:
    text = f"[{{to: slack, url: env:LOCAL}}, 5, {{to: slack}}, {{{entry}}}]"
    assert told(text) == [(("alerts", 3, *path), why)]
    assert channels(entries(f"- {{{entry}}}"), ENVIRON) == ()


def test_a_private_address_is_meant_where_it_is_said() -> None:
    text = "- {to: slack, url: env:PRIVATE, allow_private: true}"
    assert told(text) == []
    assert channels(entries(text), ENVIRON) == (SlackWebhook(ENVIRON["PRIVATE"]),)


@pytest.mark.parametrize(
    "entry",
    [
        "to: webhook, url: https://hooks.example.com/canary",
        "to: slack, url: canary-token",
        "to: webhook, url: env:HOOK, secret: canary-secret",
        f"{MAIL}, username: env:USER, password: canary-password",
    ],
)
def test_no_credential_stands_in_the_file_or_in_the_message(entry: str) -> None:
    with pytest.raises(ValidationError) as caught:
        entries(f"- {{{entry}}}")
    (error,) = caught.value.errors()
    assert error["msg"].startswith("expected a reference env:NAME")
    assert "canary" not in error["msg"]


@pytest.mark.parametrize(
    "entry",
    ["to: pigeon", "url: env:HOOK", "3", f"{MAIL}, port: 0", MAIL.replace("ops@example.com", '"a@b.c\\nBcc: x@y.z"')],
)
def test_what_is_no_channel(entry: str) -> None:
    with pytest.raises(ValidationError):
        entries(f"- {{{entry}}}" if ":" in entry else f"- {entry}")
