"""The composition root: the only module that puts technologies behind the ports."""

import os
import sys
import time
from pathlib import Path

from proxy.core.routing import RoutingTable
from proxy.phases.runtime import Runtime
from proxy.ports import ExchangeLog
from proxy.telemetry.logs import Log
from proxy.upstream.client import UpstreamClient


def build_log() -> Log:
    return Log(sys.stdout if sys.stdout is not None else Path(os.devnull).open("w"))


def build_runtime(table: RoutingTable, upstream: UpstreamClient, log: ExchangeLog) -> Runtime:
    return Runtime(table=table, upstream=upstream, log=log, now=time.monotonic, wall=time.time)
