"""Which keys open the client side: virtual keys, the environment's, the admin key."""

import time
from typing import Final

from proxy.core.failure import Failure
from proxy.core.principal import Principal
from proxy.edge.admin.shell import AdminKey
from proxy.phases.door import Door
from proxy.phases.key_ring import KeyProblem, KeyRing, Refusal
from proxy.ports import ExchangeLog
from proxy.terms import Role

ADMINISTRATOR: Final = Principal(role=Role.ADMIN, passthrough=True)
_UNKNOWN: Final = Refusal(KeyProblem.UNKNOWN)


def door(keys: KeyRing | None, admin_key: AdminKey | None, log: ExchangeLog, *, is_open: bool) -> Door:
    """The first table's door; ``is_open`` as that table and the environment say. Those of later ones come `after` it."""

    def verify(presented: str) -> Principal | Failure:
        found = _UNKNOWN if keys is None else keys.verify(presented)
        if isinstance(found, Principal):
            return found
        if admin_key is not None and admin_key.role_of(presented) is not None:
            return ADMINISTRATOR
        return found.failure

    return Door(verify, log, time.monotonic, is_open=is_open)
