"""Sees that sealed secrets have changed, whoever changed them, and has the credentials made anew within a second."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.core.credential import Vault
from proxy.core.envelope import Keyring
from proxy.ports import ExchangeLog, SecretStore, StoreAway, StoreUnusable
from proxy.server.own_secrets import SecretRefused, SecretUnavailable
from proxy.server.sealed import open_all

EVERY_S: Final = 0.5


class SealedWatch:
    """``keyring`` gives the keys as they are now; ``changed`` takes what they open.

    While the store is away, or a key must not be used, what was known goes on being used; that is told once.
    """

    def __init__(
        self,
        store: SecretStore,
        keyring: Callable[[], Keyring | None],
        known: Vault,
        log: ExchangeLog,
        changed: Callable[[Vault], Awaitable[None]],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._known = known
        self._log = log
        self._changed = changed
        self._trouble: str | None = None

    async def run(self, every_s: float = EVERY_S) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Ask the store once."""
        try:
            if await self._store.change() == self._known.change:
                self._trouble = None
                return
            held = await self._store.load()
            found = open_all(held, self._keyring(), self._known)
        except (StoreAway, StoreUnusable, SecretRefused, SecretUnavailable) as problem:
            if self._trouble is None:
                self._log.event("sealed secrets: cannot be read, the last known ones are used", error=str(problem))
            self._trouble = str(problem)
            return
        self._trouble = None
        await self._changed(found)
        self._known = found
        names = sorted(found.values)
        self._log.event("sealed secrets: read", change=found.change, names=names, unopened=dict(found.unopened))
