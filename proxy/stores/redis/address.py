"""Where Redis is, from a URL: how to open a connection to it, and how to name it without its secrets.

Deadlines are not redis-py's affair: whoever opens or asks sets them. Its retries are off, because a script that counts must
not be run twice, and so are its own timeouts, because each of its levels would wait for as long again.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

SUPPORTED: Final = (
    "redis://[user:password@]host[:port][/database], rediss:// for TLS, unix://[user:password@]/path[?db=0], or "
    "redis+sentinel://[user:password@]host[:port],host[:port]/service[/database] (rediss+sentinel:// for TLS), "
    "redis+cluster://[user:password@]host[:port],host[:port] (rediss+cluster:// for TLS)"
)
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
_SCHEMES: Final = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
_ESCAPED: Final = "in a password ? is written %3F, / %2F, # %23, @ %40, [ %5B and ] %5D"
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379


class BadRedisUrl(ValueError):  # noqa: N818 - a message for whoever set the variable
    """The URL cannot be used. The message says why and what can, and does not repeat the URL: it may hold a password."""


@dataclass(frozen=True, slots=True)
class Address:
    """Shapes: ``hosts`` are Redis itself (one), sentinels that know of ``service``, or some nodes of a ``cluster``; empty
    for a socket at ``path``."""

    hosts: tuple[tuple[str, int], ...]
    path: str = ""
    service: str = ""
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, Any], ...] = ()
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    cluster: bool = False

    @property
    def shown(self) -> str:
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        if self.cluster:
            return f"{scheme}+cluster://{hosts}"
        return f"{scheme}://{hosts}/" + (f"{self.service}/" if self.service else "") + str(self.database)

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.password, self.sentinel_password) if secret)

    def of_node(self, node: tuple[str, int]) -> "Address":
        """One node of this Cluster, by the same credentials."""
        return replace(self, hosts=(node,), cluster=False)

    async def open(self, within_s: float) -> AbstractConnection:
        """A connection, signed in. Raises redis-py's errors, `OSError`."""
        try:
            async with asyncio.timeout(within_s):
                return await self._open()
        except TimeoutError:
            raise exceptions.TimeoutError(f"no connection within {within_s:g} s") from None

    async def _open(self) -> AbstractConnection:
        host, port = await self._master() if self.service else self.hosts[0] if self.hosts else ("", 0)
        connection = self._connection(host, port)
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py declares no types here
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _master(self) -> tuple[str, int]:
        sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py declares no types here
            self.hosts,
            sentinel_kwargs={
                "username": self.sentinel_username,
                "password": self.sentinel_password,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                "ssl": self.tls,
                **dict(self.options),
            },
        )
        try:
            host, port = await sentinel.discover_master(self.service)
            return str(host), int(port)
        finally:
            await sentinel.aclose()

    def _connection(self, host: str, port: int) -> AbstractConnection:
        kwargs: dict[str, Any] = {
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # nothing comes that was not asked for
            "driver_info": None,
            **dict(self.options),
        }
        if self.path:
            return UnixDomainSocketConnection(path=self.path, **kwargs)
        return (SSLConnection if self.tls else Connection)(host=host, port=port, **kwargs)


def parse(url: str) -> Address:
    """Raises `BadRedisUrl`."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:  # whose message may quote the password
        raise _bad(f"it cannot be read; {_ESCAPED}") from None
    scheme = parts.scheme.lower()
    if scheme not in _SCHEMES:
        raise _bad(f"its scheme is {scheme!r}" if scheme else "it has no scheme")
    sentinels, cluster = scheme.endswith("+sentinel"), scheme.endswith("+cluster")
    tls = scheme.startswith("rediss")
    _check_options(query, tls=tls, sentinels=sentinels)
    credentials, _, place = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    address = Address(
        hosts=()
        if scheme == "unix"
        else _hosts(place, _SENTINEL_PORT if sentinels else _PORT, several=sentinels or cluster),
        path=unquote(parts.path) if scheme == "unix" else "",
        service=unquote(parts.path.split("/")[1]) if sentinels and parts.path else "",
        tls=tls,
        database=_database(query.get("db") or _database_of(parts.path, scheme, sentinels=sentinels)),
        username=unquote(username) or None,
        password=unquote(password) or None,
        options=tuple((name, _option(name, value)) for name, value in query.items() if name.startswith("ssl_")),
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        cluster=cluster,
    )
    if cluster and address.database:
        raise _bad("a Cluster has no databases but 0")
    if scheme == "unix" and (not address.path or place):
        raise _bad("a unix:// URL names a path, with three slashes")
    if sentinels and not address.service:
        raise _bad("it does not say which service the sentinels are asked for")
    return address


def _bad(why: str) -> BadRedisUrl:
    return BadRedisUrl(f"REDIS_URL cannot be used: {why}. Supported: {SUPPORTED}")


def _check_options(query: dict[str, str], *, tls: bool, sentinels: bool) -> None:
    known = {name for name in _OPTIONS if tls or not name.startswith("ssl_")} | (
        _SENTINEL_OPTIONS if sentinels else set()
    )
    unknown = sorted(set(query) - known)
    if unknown and any("@" in part for one in query.items() for part in one):
        raise _bad(f"what it has after its question mark are no options; {_ESCAPED}")
    if unknown:
        raise _bad(f"it has the option {unknown[0]!r}; there are {', '.join(sorted(known))}")


def _option(name: str, value: str) -> str | bool:
    if name != "ssl_check_hostname":
        return value
    if value.lower() not in {"true", "false"}:
        raise _bad("ssl_check_hostname is true or false")
    return value.lower() == "true"


def _hosts(place: str, default_port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    names = place.split(",") if several else [place]
    return tuple(_host(name, default_port) for name in names)


def _host(name: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{name}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad("a port is a number up to 65535, and an IPv6 address stands in brackets") from None
    if not host:
        raise _bad("it names no host")
    return unquote(host), default_port if port is None else port


def _database_of(path: str, scheme: str, *, sentinels: bool) -> str:
    if scheme == "unix":
        return "0"
    steps = [step for step in path.split("/") if step]
    if sentinels:
        steps = steps[1:]
    if len(steps) > 1:
        raise _bad("its path has too many parts")
    return steps[0] if steps else "0"


def _database(text: str) -> int:
    if not text.isdecimal() or len(text) > 5:
        raise _bad("the database is a number")
    return int(text)
