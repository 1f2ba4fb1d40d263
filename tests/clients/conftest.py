from collections.abc import Callable

import pytest

from tests.clients.script import Ran
from tests.clients.sdks import Sdk, run
from tests.clients.stage import stage

Column = Callable[[Sdk], Ran]
Once = Callable[[str, Callable[[], Ran]], Ran]


@pytest.fixture(scope="session")
def once() -> Once:
    """Runs a client's scenarios when they are first asked for; what stopped it once stops every later one the same way."""
    ran: dict[str, Ran | BaseException] = {}

    def first(name: str, run: Callable[[], Ran]) -> Ran:
        if name not in ran:
            try:
                ran[name] = run()
            except (Exception, pytest.skip.Exception, pytest.fail.Exception) as stopped:  # noqa: BLE001 - raised again below
                ran[name] = stopped
        found = ran[name]
        if isinstance(found, BaseException):
            raise found
        return found

    return first


@pytest.fixture(scope="session")
def column(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Column:
    def column_of(sdk: Sdk) -> Ran:
        with stage(tmp_path_factory.mktemp(sdk.name)) as on:
            return run(sdk, on)

    return lambda sdk: once(sdk.name, lambda: column_of(sdk))
