"""A serving process with short leases, for tests that kill it.

`python -m tests.limits.process CONFIG LEASE_S` serves as `penstock serve` does, and prints its port.
"""

import os
import sys
from pathlib import Path

import uvloop

from proxy.config.resolve import load
from proxy.server import build
from proxy.server.serve import Options, Service, serve
from proxy.server.settings import Settings
from tests.limits.stage import short_leases


def main() -> None:
    config = Path(sys.argv[1])
    short_leases(float(sys.argv[2]))
    service = Service(
        Options(config, port=0),
        Settings.of(os.environ),
        load(config, os.environ),
        build.build_log(),
        lambda _, url: print(f"serves on {url}", flush=True),
    )
    uvloop.run(serve(service))


if __name__ == "__main__":
    main()
