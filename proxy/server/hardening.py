"""Keeps secrets in this process: no core dump, and nothing of the master key in the environment of what it starts.

Not done: PR_SET_DUMPABLE. The standard library has no prctl, and calls into libc have no place here (S18). What it would
add: another process of the same user could then not attach, or read this process's first environment in /proc.
"""

import contextlib
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from proxy.server.own_secrets import MASTER_KEY, PREVIOUS_MASTER_KEY

TAKEN: Final = (MASTER_KEY.variable, PREVIOUS_MASTER_KEY.variable)
_FILTER: Final = Path("/proc/self/coredump_filter")


def keep_secrets_in(environ: MutableMapping[str, str]) -> None:
    """Call once the settings are read. Children inherit all of it."""
    for variable in TAKEN:
        environ.pop(variable, None)
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every platform

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Linux does not heed the limit where core_pattern is a pipe to a program; then the dump has no memory in it.
    with contextlib.suppress(OSError):
        _FILTER.write_text("0")
