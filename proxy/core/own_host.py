"""Whether a Host header means this server: against DNS rebinding, by which a web page reaches a server on its reader's side.

Such a page has a name of its own that resolves to the victim's address, and its requests carry that name. So a name must
be one that this server goes by; an address cannot be rebound, and is fine. The port does not matter: it may be mapped.
"""

import re
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from typing import Final

LOOPBACK_NAMES: Final = frozenset({"localhost"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{0,5})?")


def is_own_host(fields: Sequence[str], names: Collection[str]) -> bool:
    """``fields``: the values of all Host headers. ``names``: lower case, beyond those of the loopback."""
    match = _HOST.fullmatch(fields[0]) if len(fields) == 1 else None
    if match is None:
        return False
    host = (match[1] or match[2]).lower().removesuffix(".")
    return host in LOOPBACK_NAMES or host in names or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
