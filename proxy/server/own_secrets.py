"""The proxy's own secrets: what the operator set, or what was made once and is kept in the data directory.

A secret that was made is a file of one line, mode 0600. It is written whole under another name first and then linked to its
own: it is there or not, never half, and of two processes that start at once one makes it and both read it. Whoever only
wants to use a secret (the command line) calls `find`, which makes none.

A file that others may read is refused rather than repaired: closing it would hide that it stood open, and who has read it
nobody knows.
"""

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.core.weak_secret import LENGTH_MAX, weakness

BYTES: Final = 32  # 256 bits
HOW_TO_MAKE_ONE: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True, slots=True)
class OwnSecret:
    """One of the secrets: what messages call it, the variable that sets it, the file that keeps it."""

    name: str
    variable: str
    file: str


ADMIN_KEY: Final = OwnSecret("admin key", "PENSTOCK_ADMIN_KEY", "admin.key")
PEPPER: Final = OwnSecret("pepper", "PENSTOCK_PEPPER", "pepper")  # what virtual keys are hashed under
MASTER_KEY: Final = OwnSecret("master key", "PENSTOCK_MASTER_KEY", "master.key")
PREVIOUS_MASTER_KEY: Final = OwnSecret("previous master key", "PENSTOCK_MASTER_KEY_PREVIOUS", "master.key.previous")


@dataclass(frozen=True, slots=True)
class Held:
    """A secret's value. ``origin``: the variable or the file that it is from. ``made``: just now, by this process."""

    value: str = field(repr=False)
    origin: str
    made: bool = False


class SecretRefused(Exception):  # noqa: N818 - it names what happened to the secret
    """There is one, and it must not be used. The message says why and what to do, and quotes nothing of it."""


class SecretUnavailable(Exception):  # noqa: N818 - likewise
    """None is set, and the data directory cannot keep one. The message says why."""


def obtain(secret: OwnSecret, given: str | None, folder: Path) -> Held:
    """The secret, made if there is none. ``given``: what its variable holds.

    Errors: SecretRefused, SecretUnavailable; then nothing was changed, but that the folder may have been made.
    """
    held = find(secret, given, folder)
    if held is not None:
        return held
    path = folder / secret.file
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _made(path)
    except OSError as error:
        raise _unavailable(secret, path, error) from None
    if made is not None:
        return Held(made, str(path), made=True)
    held = find(secret, None, folder)  # another process was quicker
    if held is None:
        raise SecretUnavailable(f"{path} is there one moment and gone the next; something else removes it.")
    return held


def find(secret: OwnSecret, given: str | None, folder: Path) -> Held | None:
    """The secret where there is one. Errors: as `obtain`."""
    if given is not None:
        weak = weakness(given)
        if weak is not None:
            raise SecretRefused(
                f"{secret.variable} {weak}. Make a good one with {HOW_TO_MAKE_ONE}, "
                f"or unset it: then one is made and kept in {folder / secret.file}."
            )
        return Held(given, secret.variable)
    path = folder / secret.file
    try:
        value = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unavailable(secret, path, error) from None
    weak = weakness(value)
    if weak is not None:
        raise SecretRefused(
            f"The {secret.name} in {path} {weak}. Remove the file, and a new one is made; or set {secret.variable}."
        )
    return Held(value, str(path))


def replace(secret: OwnSecret, previous: OwnSecret, folder: Path) -> None:
    """Make a new secret in the place of the one in its file, which is kept as `previous` until `forget`.

    Where one is kept already, an earlier replacement was not ended, and is: what ends in the middle is gone on with.
    Errors: SecretUnavailable; FileNotFoundError where there is none.
    """
    path, kept = folder / secret.file, folder / previous.file
    try:
        with contextlib.suppress(FileExistsError):
            kept.hardlink_to(path)
            _sync(folder)
        if kept.samefile(path):
            _draft(path, secrets.token_urlsafe(BYTES)).replace(path)
            _sync(folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unavailable(secret, path, error) from None


def forget(secret: OwnSecret, folder: Path) -> None:
    """Remove a secret's file. Errors: SecretUnavailable."""
    path = folder / secret.file
    try:
        path.unlink(missing_ok=True)
        _sync(folder)
    except OSError as error:
        raise _unavailable(secret, path, error) from None


def _read(path: Path) -> str:
    """Raises OSError; SecretRefused for what is no file of ours."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # no waiting for whoever writes to a pipe
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretRefused(f"{path} is not a file. Remove it, and a file is made.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise SecretRefused(
                f"{path} has the mode {mode:04o}, so others can read or change it. If nobody has: chmod 600 {path}. "
                "Else remove it, and a new one is made."
            )
        return os.read(descriptor, 4 * LENGTH_MAX).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def _made(path: Path) -> str | None:
    """Make the file whole. None where it is there already. Raises OSError, leaving nothing behind."""
    value = secrets.token_urlsafe(BYTES)
    draft = _draft(path, value)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return None
    finally:
        draft.unlink()
    _sync(path.parent)
    return value


def _draft(path: Path, value: str) -> Path:
    """A file beside `path` that holds the secret whole. Raises OSError, leaving nothing behind."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            opened.write(f"{value}\n".encode())
            opened.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink()
        raise
    return draft


def _sync(folder: Path) -> None:
    """A secret that something was sealed with must not be forgotten by a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(secret: OwnSecret, path: Path, error: OSError) -> SecretUnavailable:
    return SecretUnavailable(
        f"{secret.variable} is not set, and {path} cannot be had: {error.strerror or error}. "
        f"Set {secret.variable}, or PENSTOCK_DATA to a directory that can be written."
    )
