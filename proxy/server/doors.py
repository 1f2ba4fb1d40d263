"""Which keys open the client side: the admin key, the one of the environment, virtual keys."""

import hmac
import time
from typing import Final

from proxy.core.failure import Failure, FailureKind
from proxy.core.principal import Principal
from proxy.core.routing import RoutingTable
from proxy.core.weak_secret import weakness
from proxy.edge.admin.shell import AdminKey
from proxy.phases.door import Door
from proxy.ports import ExchangeLog
from proxy.server.own_secrets import HOW_TO_MAKE_ONE, SecretRefused
from proxy.terms import Role

API_KEY: Final = "PENSTOCK_API_KEY"
ADMINISTRATOR: Final = Principal(role=Role.ADMIN, passthrough=True)
HOLDER: Final = Principal(passthrough=True)  # of the environment's key
_NOBODYS: Final = "This key is not known here. Ask whoever runs this Penstock for one."


def door(table: RoutingTable, admin_key: AdminKey | None, api_key: str | None, log: ExchangeLog) -> Door:
    """Raises `SecretRefused` for a key of the environment that is too weak."""
    weak = None if api_key is None else weakness(api_key)
    if weak is not None:
        raise SecretRefused(f"{API_KEY} {weak}. Make a good one with {HOW_TO_MAKE_ONE}")
    shown = None if api_key is None else api_key.encode()

    def verify(presented: str) -> Principal | Failure:
        if admin_key is not None and admin_key.role_of(presented) is not None:
            return ADMINISTRATOR
        if shown is not None and hmac.compare_digest(presented.encode("utf-8", "surrogateescape"), shown):
            return HOLDER
        return Failure(FailureKind.KEY_REFUSED, _NOBODYS)

    return Door(verify, log, time.monotonic, is_open=table.open_access and api_key is None)
