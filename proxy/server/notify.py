"""What the service manager is told: that the process is ready, and that it stops. A datagram each, no dependency.

Nobody listens where NOTIFY_SOCKET is not set, and a manager that is away must not stop the service: what cannot be sent is
not sent. Source: systemd's sd_notify(3), read 2026-11-21.
"""

import os
import socket
import sys
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
SEND_S: Final = 0.1


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the manager. Returns whether it was told."""
    address = environ.get("NOTIFY_SOCKET", "")
    if sys.platform == "win32" or not address.startswith(("/", "@")):
        return False
    # An address that begins with @ is in the abstract namespace.
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(SEND_S)
        try:
            datagrams.sendto(state.encode(), path)
        except OSError:
            return False
    return True
