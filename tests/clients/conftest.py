from collections.abc import Callable

import pytest

from tests.clients.sdks import Ran, Sdk, run
from tests.clients.stage import stage

Column = Callable[[Sdk], Ran]


@pytest.fixture(scope="session")
def column(tmp_path_factory: pytest.TempPathFactory) -> Column:
    """Runs an SDK's scenarios when they are first asked for; what stopped it once stops every later one the same way."""
    ran: dict[str, Ran | BaseException] = {}

    def once(sdk: Sdk) -> Ran:
        if sdk.name not in ran:
            try:
                with stage(tmp_path_factory.mktemp(sdk.name)) as on:
                    ran[sdk.name] = run(sdk, on)
            except (Exception, pytest.skip.Exception, pytest.fail.Exception) as stopped:  # noqa: BLE001 - raised again below
                ran[sdk.name] = stopped
        found = ran[sdk.name]
        if isinstance(found, BaseException):
            raise found
        return found

    return once
