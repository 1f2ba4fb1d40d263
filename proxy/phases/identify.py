"""Phase 1, identify: who is calling? Before a byte of the body is read.

Access is open: every caller is the account `default`, whatever credential it shows.
"""

from proxy.core.principal import ANYBODY
from proxy.phases.exchange import Exchange


def identify(x: Exchange) -> None:
    x.principal = ANYBODY
