"""What `penstock doctor` looks at: the machine, stores, packages, providers. What it means is said by `core/checkup`."""

import asyncio
import os
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.core import checkup
from proxy.core.checkup import Finding
from proxy.core.routing import RoutingTable
from proxy.ports import StoreUnusable
from proxy.providers.rows import CATALOGUE
from proxy.server.settings import VARIABLES, Settings
from proxy.stores import migrations

WAIT_S: Final = 5.0
REDIS_S: Final = 1.0
FREE_MIB_MIN: Final = 512
_OWN: Final = Path(__file__).parents[1]
_STORES: Final = _OWN / "stores"
_PREFIX: Final = "PENSTOCK_"
# The tests read them.
_ELSEWHERE: Final = frozenset({"PENSTOCK_RECORDINGS", "PENSTOCK_CHAOS_SEED", "PENSTOCK_CHAOS_SECONDS"})


def environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that look like ours. Kubernetes sets PENSTOCK_SERVICE_HOST and the like beside a service `penstock`."""
    for name in sorted(environ):
        from_kubernetes = name.startswith(("PENSTOCK_SERVICE_", "PENSTOCK_PORT_"))
        if name.startswith(_PREFIX) and name not in VARIABLES and name not in _ELSEWHERE and not from_kubernetes:
            yield checkup.variable(name, VARIABLES)


def descriptors() -> Iterator[Finding]:
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on every platform

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 1 << 30  # stands for no limit
        yield checkup.descriptors(*(most if one == resource.RLIM_INFINITY else one for one in (soft, hard)))


def data(folder: Path) -> Iterator[Finding]:
    """The data directory can be written, and what is in it is nobody else's."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        do = "Set PENSTOCK_DATA to a directory on a local disk that this user may write to."
        yield checkup.problem("data", f"{folder} cannot be written, and nothing is served that is not written down", do)
        return
    if there != folder:
        yield checkup.ok("data", f"{folder} is not there yet, and can be made")
        return
    free = os.statvfs(folder)
    free_mib = free.f_bavail * free.f_frsize // 1024 // 1024
    if free_mib < FREE_MIB_MIN:
        do = "Make room: requests are refused when the journal cannot be written."
        yield checkup.warning("data", f"{folder} has {free_mib} MiB left", do)
    else:
        yield checkup.ok("data", f"{folder} can be written, {free_mib} MiB are free")
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and path.suffix in (".key", ".sqlite3"):
            mode = stat.S_IMODE(status.st_mode)
            yield checkup.file_mode(str(path), mode, is_secret=path.suffix == ".key")


def port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    taken_by: str | None = None
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            taken_by = checkup.OURS if _is_ours(settings) else error.strerror or str(error)
    return checkup.port(settings.host, settings.port, taken_by)


def _is_ours(settings: Settings) -> bool:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - 20 ms, where it is needed

    connection = HTTPConnection(settings.host, settings.port, timeout=REDIS_S)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().getheader("server") == checkup.OURS
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def package() -> Finding:
    others = [name for name in metadata.packages_distributions().get("proxy", []) if name.lower() != checkup.OURS]
    strangers: list[str] = []
    for folder in dict.fromkeys(Path(one or ".").resolve() for one in sys.path):
        for found in (folder / "proxy" / "__init__.py", folder / "proxy.py"):
            if found.is_file() and not found.parent.samefile(_OWN):
                strangers.append(str(found))  # noqa: PERF401 - two conditions read better so
    return checkup.distributions(sorted(set(others)), [] if others else strangers)


def table(used: RoutingTable) -> Iterator[Finding]:
    """Providers and routes of a table that is valid."""
    switched_on = [route for route in used.routes.values() if route.enabled]
    asked: dict[str, list[str]] = {}
    for route in switched_on:
        for target in route.targets:
            names = asked.setdefault(target.provider.id, [])
            if route.name not in names:
                names.append(route.name)
    known = {str(name): provider for name, provider in used.providers.items()}
    yield from checkup.providers([checkup.Used(name, known[name].inactive, names) for name, names in asked.items()])
    unserved = [route.name for route in switched_on if all(one.provider.inactive is not None for one in route.targets)]
    yield checkup.routes(unserved, len(switched_on) - len(unserved))
    from proxy.config.retired import retired  # noqa: PLC0415 - 70 ms

    yield from checkup.retired(retired(used))


async def redis(url: str | None) -> Sequence[Finding]:
    if url is None:
        return [checkup.ok("redis", "REDIS_URL is not set: cache, breakers and budgets are this one process's")]
    from proxy.stores.redis.address import BadRedisUrl  # noqa: PLC0415 - 0.3 s, for those who use it
    from proxy.stores.redis.connection import RedisConnection  # noqa: PLC0415

    try:
        connection = RedisConnection(url, deadline_s=REDIS_S)
    except BadRedisUrl as bad:
        return [checkup.problem("redis", str(bad), "Write redis://host:6379/0.")]
    try:
        began = time.monotonic()
        await connection.start(everywhere=True)
        state = connection.state
        if not state.up:
            do = "Start it, or unset REDIS_URL. Until then each process goes on by itself."
            return [checkup.problem("redis", f"Redis at {state.where} does not serve: {state.last_error}", do)]
        took_s = time.monotonic() - began
        asked = time.monotonic()
        seconds, micros = await connection.call("TIME")
        ahead_s = time.time() - (int(seconds) + int(micros) / 1e6)
        return [
            checkup.ok("redis", f"Redis at {state.where} takes writes, in {took_s * 1000:.0f} ms with the connection"),
            checkup.clock("Redis", ahead_s, time.monotonic() - asked),
        ]
    finally:
        await connection.close()


async def database(settings: Settings) -> Sequence[Finding]:
    if settings.database_url is None:
        return list(_sqlite(settings.data))
    try:
        return await _postgres(settings.database_url)
    except StoreUnusable as unusable:
        return [checkup.problem("database", str(unusable), "See the message.")]
    except ValueError:  # whose message may quote the password
        return [checkup.problem("database", "DATABASE_URL cannot be read", "Write postgresql://user@host/database")]


def _sqlite(folder: Path) -> Iterator[Finding]:
    files = sorted(folder.glob("*.sqlite3")) if folder.is_dir() else []
    if not files:
        yield checkup.ok("database", f"there is none in {folder} yet; `penstock serve` makes it")
    for path in files:
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_S)
            try:
                applied = dict(connection.execute("SELECT part, max(version) FROM penstock_schema GROUP BY part"))
            finally:
                connection.close()
        except sqlite3.Error as error:
            do = "Move it away, or restore a backup; PENSTOCK_DATA says where it is looked for."
            yield checkup.problem("database", f"{path} cannot be read: {error}", do)
        else:
            yield from checkup.schema(str(path), applied, known_schema("sqlite"))


async def _postgres(url: str) -> Sequence[Finding]:
    where = f"PostgreSQL at {urlsplit(url).hostname or 'the local socket'}"
    try:
        import asyncpg  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        do = "Install the extra: pip install 'penstock[postgres]'"
        return [checkup.problem("database", "DATABASE_URL needs the driver asyncpg, which is not installed", do)]
    do = "Start it, or set DATABASE_URL right. Rows of the ledger wait in the journal meanwhile."
    try:
        async with asyncio.timeout(WAIT_S):
            connection = await asyncpg.connect(url)
            try:
                asked = time.monotonic()
                theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                ahead_s, took_s = time.time() - float(theirs), time.monotonic() - asked
                made = await connection.fetchval("SELECT to_regclass('penstock_schema') IS NOT NULL")
                rows = (
                    await connection.fetch("SELECT part, max(version) AS version FROM penstock_schema GROUP BY part")
                    if made
                    else []
                )
            finally:
                await connection.close(timeout=1.0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError) as error:
        why = str(error) or f"no answer within {WAIT_S:.0f} s"
        password = urlsplit(url).password
        return [checkup.problem("database", f"{where}: {why.replace(password, '***') if password else why}", do)]
    applied = {str(row["part"]): int(row["version"]) for row in rows}
    found = list(checkup.schema(where, applied, known_schema("postgres")))
    if not found:
        found = [checkup.ok("database", f"{where} is empty; `penstock serve` makes its tables")]
    return [*found, checkup.clock("PostgreSQL", ahead_s, took_s)]


def known_schema(kind: str) -> dict[str, int]:
    """The last migration of each part: those of the ledger lie at the top, those of other parts in folders of their own."""
    top = _STORES / kind / "migrations"
    folders = {"ledger": top, **{one.name: one for one in top.iterdir() if one.is_dir() and one.name[0] not in "_."}}
    return {part: len(migrations.load(folder)) for part, folder in folders.items()}


async def live(used: RoutingTable) -> Sequence[Finding]:
    """Ask each active provider for its models: it costs nothing, and is refused where the key is."""
    from proxy.phases.probe import Probe  # noqa: PLC0415 - for those who ask
    from proxy.upstream.client import UpstreamClient  # noqa: PLC0415

    upstream = UpstreamClient()
    try:
        checks = await Probe(upstream, time.monotonic, time.time, every_s=0).ask(used.providers.values())
    finally:
        await upstream.close()
    silent = [
        checkup.ok("live", f"{one.id} lists no models, so it was not asked")
        for one in used.providers.values()
        if one.inactive is None and one.models_url is None
    ]
    return [*(checkup.live(name, one.error, one.latency_s) for name, one in sorted(checks.items())), *silent]


def credentials(used: RoutingTable) -> Iterator[Finding]:
    """A key that is set twice over: the first variable counts, and the other may be the one that was renewed."""
    for provider in used.providers.values():
        row = CATALOGUE.get(provider.id)
        if row is None:
            continue
        values = {name: os.environ.get(name, "").strip() for name in provider.key_vars}
        given = {name: value for name, value in values.items() if value}
        if len(set(given.values())) > 1:
            first, *rest = given
            told = f"{provider.id} has different keys in {first} and {' and '.join(rest)}; {first} counts"
            yield checkup.warning("providers", told, "Unset those that are old.")
