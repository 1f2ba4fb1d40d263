"""`/admin/config`: the routes file as the process runs on it, and reading it again."""

from typing import Any

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.ports import ConfigState

_WHY = "an operator asked"


async def shown(ask: Ask) -> dict[str, Any]:
    """The file that is served, and why the last reload changed nothing, where it did not."""
    configuration = ask.runtime.configuration
    source = ask.runtime.table.source
    if configuration is not None:
        return _told(configuration.state)
    if source is not None:
        return _told(ConfigState(source.path, source.sha256, source.read_at))
    return {"path": None, "sha256": None, "loaded_at": None, "reloads": 0, "failed_at": None, "problems": []}


async def reload(ask: Ask) -> dict[str, Any]:
    """Read the file again. 400 with every problem where it cannot be served; then nothing has changed."""
    configuration = ask.runtime.configuration
    if configuration is None:
        raise bad("This process was started without a routes file, so there is nothing to read again.")
    state = await configuration.reload(_WHY)
    if state.reload_failed:
        message = "The file is not served, the last good one is: " + "\n".join(state.problems)
        raise Rejected(Failure(FailureKind.BAD_REQUEST, message))
    return {**_told(state), "changes": list(state.changes)}


def _told(state: ConfigState) -> dict[str, Any]:
    return {
        "path": state.path,
        "sha256": state.sha256,
        "loaded_at": round(state.loaded_at, 3),
        "reloads": state.reloads,
        "failed_at": None if state.failed_at is None else round(state.failed_at, 3),
        "problems": list(state.problems),
    }
