"""What `penstock doctor` makes of what it looked at: a pure function a check, its findings with what to do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.core.nearest import did_you_mean

SKEW_S_TOLD: Final = 1.0  # leases and the windows of budgets are cut by the wall clock
SKEW_S_MAX: Final = 10.0
DESCRIPTORS_MIN: Final = 256
DESCRIPTORS_GOOD: Final = 4096
DESCRIPTORS_OWN: Final = 64  # files, stores, sockets that listen
DESCRIPTORS_A_STREAM: Final = 2  # the client's and the provider's
OURS: Final = "penstock"


class Level(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``check``: which one. ``told``: what was found and what it means. ``do``: what to do, empty where nothing is."""

    check: str
    level: Level
    told: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """A provider as routes use it. ``inactive`` None: it is active."""

    id: str
    inactive: str | None
    routes: Sequence[str]


def ok(check: str, told: str) -> Finding:
    return Finding(check, Level.OK, told)


def warning(check: str, told: str, do: str) -> Finding:
    return Finding(check, Level.WARNING, told, do)


def problem(check: str, told: str, do: str) -> Finding:
    return Finding(check, Level.PROBLEM, told, do)


def worst(findings: Iterable[Finding]) -> Level:
    order = list(Level)
    return max((one.level for one in findings), key=order.index, default=Level.OK)


def clock(whose: str, ahead_s: float, took_s: float) -> Finding:
    """``ahead_s``: how far this machine is ahead of it, known to within ``took_s``, which the question took."""
    apart = max(0.0, abs(ahead_s) - took_s)
    told = f"this machine's clock is {apart:.1f} s {'ahead of' if ahead_s > 0 else 'behind'} that of {whose}"
    do = "Let both machines keep time by NTP (timedatectl set-ntp true)."
    if apart > SKEW_S_MAX:
        return problem(
            "clock", f"{told}: budgets begin anew at the wrong time, and leases end too early or too late", do
        )
    if apart > SKEW_S_TOLD:
        return warning("clock", f"{told}: budgets begin anew at another moment than elsewhere", do)
    return ok("clock", f"it agrees with that of {whose}")


def descriptors(soft: int, hard: int) -> Finding:
    """Of this shell: a service gets its own from systemd or the container's runtime."""
    streams = max(0, soft - DESCRIPTORS_OWN) // DESCRIPTORS_A_STREAM
    told = f"{soft} files may be open (at most {hard}), enough for {streams} streams at once"
    do = f"Raise it: ulimit -n {min(max(hard, soft), 65536)}, or LimitNOFILE=65536 in the systemd unit."
    if soft < DESCRIPTORS_MIN:
        return problem("descriptors", told, do)
    return warning("descriptors", told, do) if soft < DESCRIPTORS_GOOD else ok("descriptors", told)


def file_mode(path: str, mode: int, *, is_secret: bool) -> Finding:
    if not mode & 0o077:
        return ok("secrets" if is_secret else "data", f"{path} is its owner's alone")
    told = f"{path} has the mode {mode:04o}, so others can read or change it"
    if is_secret:
        return problem("secrets", told, f"If nobody has: chmod 600 {path}. Else remove it, and a new one is made.")
    return warning("data", f"{told}: it says who used what", f"chmod go-rwx {path}")


def schema(where: str, applied: Mapping[str, int], known: Mapping[str, int]) -> Iterator[Finding]:
    """``applied`` and ``known``: the last migration of each part, there and here."""
    for part, version in applied.items():
        newest = known.get(part, 0)
        if version > newest:
            yield problem(
                "database",
                f"{where} has version {version} of {part}, and this Penstock knows {newest}: a newer one wrote it",
                "Run that version, or restore a backup from before the upgrade.",
            )
        elif version < newest:
            told = f"{where} has version {version} of {part}, and this Penstock has {newest}"
            yield warning(
                "database", told, "`penstock serve` brings it up to date when it starts. Make a backup first."
            )
        else:
            yield ok("database", f"{where} has version {version} of {part}, as this Penstock")


def providers(used: Sequence[Used]) -> Iterator[Finding]:
    """What routes name, and whether it can answer."""
    if not any(one.inactive is None for one in used):
        yield warning(
            "providers",
            "no provider that a route names is active: `penstock serve` starts in demo mode, and a simulator answers",
            "Set the key of one, or start Ollama, vLLM, llama.cpp or LM Studio.",
        )
    for one in used:
        if one.inactive is None:
            yield ok("providers", f"{one.id} is active")
        else:
            count = len(one.routes)
            named = f"{', '.join(one.routes[:3])}{f' and {count - 3} more' if count > 3 else ''}"
            told = f"{one.id} is inactive ({one.inactive}); routes skip it: {named}"
            yield warning(
                "providers", told, f"Set its key, or take it out of these routes: penstock providers {one.id}"
            )


def routes(unserved: Sequence[str], served: int) -> Finding:
    """``unserved``: routes that are switched on and have no target whose provider is active."""
    if not unserved:
        return ok("routes", f"each of {served} has a target that can serve it")
    named = ", ".join(unserved[:5]) + (f" and {len(unserved) - 5} more" if len(unserved) > 5 else "")
    told = f"{len(unserved)} of {served + len(unserved)} have no active target, so requests get 503: {named}"
    return warning("routes", told, "penstock explain ROUTE says what each target lacks.")


def retired(found: Mapping[str, str]) -> Iterator[Finding]:
    """``found``: each configured target that is retired or is going to be, and who says what."""
    if not found:
        yield ok("models", "none in the table is known to be retired")
    for target, why in found.items():
        told = f"{target}: {why}"
        yield warning(
            "models", told, "Put its successor into the routes file; `penstock explain` shows which routes ask it."
        )


def distributions(others: Sequence[str], strangers: Sequence[str]) -> Finding:
    """``others``: distributions that ship a top-level `proxy`; ``strangers``: places with one that is not ours."""
    found = [*(f"the distribution {name}" for name in others if name.lower() != OURS), *strangers]
    if not found:
        return ok("package", "no other distribution here ships a package `proxy`")
    return problem(
        "package",
        f"beside Penstock there is another top-level `proxy`: {', '.join(found)}. Which one is imported is chance",
        "Install Penstock into a venv of its own: pipx install penstock, or make run.",
    )


def port(host: str, number: int, taken_by: str | None) -> Finding:
    """``taken_by`` None: it is free."""
    if taken_by is None:
        return ok("port", f"{host}:{number} is free")
    if taken_by == OURS:
        return ok("port", f"{host}:{number}: Penstock runs there")
    do = f"Stop it, or choose another port: PENSTOCK_PORT={number + 1}"
    return problem("port", f"{host}:{number} cannot be listened on: {taken_by}", do)


def variable(name: str, known: Iterable[str]) -> Finding:
    """A variable that begins as ours do, and that nobody reads."""
    do = f"Unset it, or write it right.{did_you_mean(name, known)}"
    return warning("environment", f"{name} is set, and Penstock reads no such variable", do)


def live(provider: str, error: str | None, latency_s: float) -> Finding:
    if error is None:
        return ok("live", f"{provider} answered in {latency_s * 1000:.0f} ms")
    do = "Check the key and the way there; `penstock providers` shows the address."
    return problem("live", f"{provider} does not serve: {error}", do)
