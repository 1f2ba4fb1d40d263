"""What the environment says to the process, read once. A variable more is a line more.

Credentials of providers are no settings: which variables hold them, the catalogue and the routes file say. An empty value
counts as unset, as in a copied `.env.example`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from proxy.core import redact

PORT: Final = 4020
LOG_BYTES: Final = 100 * 1024 * 1024
LOG_FILES: Final = 5


class BadSettings(Exception):  # noqa: N818 - a message for the command line, which exits with it
    """Variables hold what they cannot. The message has a line for each."""


def _by(variable: str, read: Callable[[str], object]) -> dict[str, Any]:
    """What sets a field. ``read`` makes the value of the variable's text, or raises ValueError with what it expected."""
    return {"variable": variable, "read": read}


def _port(default: int | None) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        # Kubernetes sets PENSTOCK_PORT=tcp://10.0.0.1:4020 in every pod beside a service named penstock.
        if text.startswith("tcp://"):
            return default
        if not text.isdecimal() or not text.isascii() or int(text) > 65535:
            raise ValueError("a port from 0 to 65535")
        return int(text)

    return read


def _whole(what: str, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or len(text) > 16 or not 1 <= int(text) <= most:
            raise ValueError(f"{what} from 1 to {most}")
        return int(text)

    return read


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in text.replace(",", " ").split())


def _log(text: str) -> Path | None:
    return None if text == "stdout" else Path(text)


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 15:
        raise ValueError("a whole number")
    return int(text)


@dataclass(frozen=True, slots=True)
class Settings:
    """Each with the value that counts where its variable is unset. Secrets are those without a part in the repr."""

    config: Path | None = field(default=None, metadata=_by("PENSTOCK_CONFIG", Path))
    host: str = field(default="127.0.0.1", metadata=_by("PENSTOCK_HOST", str))
    port: int = field(default=PORT, metadata=_by("PENSTOCK_PORT", _port(PORT)))
    data: Path = field(default=Path("data"), metadata=_by("PENSTOCK_DATA", Path))
    admin_key: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_ADMIN_KEY", str))
    api_key: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_API_KEY", str))
    admin_port: int | None = field(default=None, metadata=_by("PENSTOCK_ADMIN_PORT", _port(None)))
    admin_hosts: tuple[str, ...] = field(default=(), metadata=_by("PENSTOCK_ADMIN_HOSTS", _names))
    url: str | None = field(default=None, metadata=_by("PENSTOCK_URL", str))
    workers: int | None = field(default=None, metadata=_by("PENSTOCK_WORKERS", _whole("a number of workers", 64)))
    memory_bytes: int | None = field(
        default=None, metadata=_by("PENSTOCK_MEMORY_BYTES", _whole("a number of bytes", 1 << 50))
    )
    redis_url: str | None = field(default=None, repr=False, metadata=_by("REDIS_URL", str))
    database_url: str | None = field(default=None, repr=False, metadata=_by("DATABASE_URL", str))
    pepper: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_PEPPER", str))
    pepper_previous: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_PEPPER_PREVIOUS", str))
    master_key: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_MASTER_KEY", str))
    master_key_previous: str | None = field(default=None, repr=False, metadata=_by("PENSTOCK_MASTER_KEY_PREVIOUS", str))
    log: Path | None = field(default=None, metadata=_by("PENSTOCK_LOG", _log))
    log_bytes: int = field(default=LOG_BYTES, metadata=_by("PENSTOCK_LOG_BYTES", _number))
    log_files: int = field(default=LOG_FILES, metadata=_by("PENSTOCK_LOG_FILES", _number))
    metrics_port: int | None = field(default=None, metadata=_by("PENSTOCK_METRICS_PORT", _port(None)))
    metrics_host: str = field(default="127.0.0.1", metadata=_by("PENSTOCK_METRICS_HOST", str))
    otlp_endpoint: str | None = field(default=None, repr=False, metadata=_by("OTEL_EXPORTER_OTLP_ENDPOINT", str))
    sentry_dsn: str | None = field(default=None, repr=False, metadata=_by("SENTRY_DSN", str))

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Settings":
        """Errors: BadSettings, with every variable that cannot be read; a secret is not quoted."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for one in fields(cls):
            name = one.metadata["variable"]
            given = environ.get(name, "").strip()
            if not given:
                continue
            try:
                values[one.name] = one.metadata["read"](given)
            except ValueError as expected:
                got = repr(redact.text(given)[:80]) if one.repr else "something else"
                problems.append(f"{name}: expected {expected}, got {got}")
        if problems:
            raise BadSettings("\n".join(problems))
        return cls(**values)


VARIABLES: Final = tuple(str(one.metadata["variable"]) for one in fields(Settings))
