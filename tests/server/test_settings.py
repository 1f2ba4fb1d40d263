"""What the environment says, read once; and that nobody else reads it."""

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import proxy
from proxy.server.settings import VARIABLES, BadSettings, Settings

SECRET = "hush-Zq8vT1nB6yKd4wXs9LpRf2JmGc7h"


def test_what_is_unset_or_empty_has_its_default() -> None:
    defaults = Settings(None, "127.0.0.1", 4020, Path("data"), None, None, None, (), None)
    assert Settings.of({}) == defaults
    assert Settings.of(dict.fromkeys(VARIABLES, "")) == defaults
    assert Settings.of(dict.fromkeys(VARIABLES, "  ")) == defaults


def test_every_variable_is_read() -> None:
    given = Settings.of(
        {
            "PENSTOCK_CONFIG": "my.yaml",
            "PENSTOCK_HOST": "::1",
            "PENSTOCK_PORT": "80",
            "PENSTOCK_DATA": "/var/lib/penstock",
            "PENSTOCK_ADMIN_KEY": f" {SECRET}\n",
            "PENSTOCK_ADMIN_PORT": "0",
            "PENSTOCK_ADMIN_HOSTS": "Proxy.example, admin.example",
            "PENSTOCK_URL": "https://proxy.example",
            "PENSTOCK_MASTER_KEY": SECRET,
            "PENSTOCK_MASTER_KEY_PREVIOUS": SECRET[::-1],
            "PENSTOCK_WORKERS": "4",
            "PENSTOCK_MEMORY_BYTES": "1000000000",
            "HOME": "/root",
        }
    )
    names = ("proxy.example", "admin.example")
    data = Path("/var/lib/penstock")
    assert given == Settings(
        *(Path("my.yaml"), "::1", 80, data, SECRET, None, 0, names, "https://proxy.example"),
        master_key=SECRET,
        master_key_previous=SECRET[::-1],
        workers=4,
        memory_bytes=1_000_000_000,
    )


def test_a_secret_has_no_part_in_the_repr_and_settings_stay_as_they_are() -> None:
    secrets = ("PENSTOCK_ADMIN_KEY", "PENSTOCK_MASTER_KEY", "PENSTOCK_MASTER_KEY_PREVIOUS")
    settings = Settings.of(dict.fromkeys(secrets, SECRET))
    assert SECRET not in repr(settings)
    assert "4020" in repr(settings)
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc] # which is what is refused


@pytest.mark.parametrize("value", ["x", "-1", "65536", "4020.0", "\u0664\u0660", "0x10", "1e3"])
def test_everything_that_cannot_be_read_is_told_at_once(value: str) -> None:
    with pytest.raises(BadSettings) as caught:
        Settings.of({"PENSTOCK_PORT": value, "PENSTOCK_ADMIN_PORT": value, "PENSTOCK_ADMIN_KEY": SECRET})
    assert str(caught.value).splitlines() == [
        f"PENSTOCK_PORT: expected a port from 0 to 65535, got {value!r}",
        f"PENSTOCK_ADMIN_PORT: expected a port from 0 to 65535, got {value!r}",
    ]


def test_what_kubernetes_sets_beside_a_service_named_penstock_is_not_meant() -> None:
    services = {"PENSTOCK_PORT": "tcp://10.0.0.1:4020", "PENSTOCK_ADMIN_PORT": "tcp://10.0.0.2:80"}
    assert Settings.of(services) == Settings()


def test_the_environment_is_read_by_commands_alone_and_handed_on() -> None:
    root = Path(proxy.__file__).parent
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        # LiteLLM's own references are spelled `os.environ/NAME`.
        if re.search(r"os\.environ(?!/)|getenv|envvar=|environb", path.read_text("utf-8"))
    }
    commands = {"check", "doctor", "doctor_facts", "options", "provider", "serve"}
    # NOTIFY_SOCKET is systemd's word to the process that it started, and no setting.
    assert readers == {*(f"cli/{name}.py" for name in commands), "server/notify.py"}
