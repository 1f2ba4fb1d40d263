"""From samples to figures, verdicts and the table."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from typing import Final

from .gateways import PENSTOCK, RELAY
from .measure import Samples, spread


class Verdict(Enum):
    """What a figure says of its target."""

    KEPT = "kept"
    MISSED = "MISSED"
    NO_TARGET = "-"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table. A target is on the ratio to the bare relay or on Penstock's own value, as ``unit`` has it."""

    name: str
    title: str
    unit: str
    digits: int = 0
    ratio_max: float | None = None
    value_max: float | None = None


FIGURES: Final = (
    Figure("json_16_cpu_us", "CPU a JSON request, 16 connections", "us", ratio_max=1.5),
    Figure("json_1_cpu_us", "CPU a JSON request, 1 connection", "us", ratio_max=1.5),
    Figure("stream_cpu_us", "CPU a stream of 103 events, 16 connections", "us", ratio_max=1.3),
    Figure("miss_cpu_us", "CPU a JSON miss that is kept, 16 connections", "us"),
    Figure("hit_cpu_us", "CPU a JSON hit, 16 connections", "us"),
    Figure("hit_share", "CPU of a hit, of a miss's", "x", digits=2, value_max=0.33),
    Figure("hit_first_p50_ms", "first byte of a JSON hit, 1 connection, p50", "ms", digits=2, value_max=1),
    Figure("brisk_first_p50_ms", "100 streams x 25/s: added to first content, p50", "ms", digits=2),
    Figure("brisk_event_p50_ms", "100 streams x 25/s: added to an event, p50", "ms", digits=2),
    Figure("brisk_event_p99_ms", "100 streams x 25/s: added to an event, p99", "ms", digits=2),
    Figure("brisk_event_cpu_us", "100 streams x 25/s: CPU an event", "us", digits=1),
    Figure("many_first_p50_ms", "1,000 streams x 5/s: added to first content, p50", "ms", digits=2),
    Figure("many_event_p50_ms", "1,000 streams x 5/s: added to an event, p50", "ms", digits=2),
    Figure("many_event_p99_ms", "1,000 streams x 5/s: added to an event, p99", "ms", digits=2),
    Figure("many_event_cpu_us", "1,000 streams x 5/s: CPU an event", "us", digits=1),
    Figure("many_stream_rss_kib", "1,000 streams x 5/s: RSS a stream", "KiB", digits=1, value_max=64),
    Figure("first_answer_ms", "first answer after spawn", "ms", value_max=1000),
    Figure("idle_rss_mib", "RSS idle, 1 s after the first answer", "MiB", digits=1, value_max=80),
)


@dataclass(frozen=True, slots=True)
class Row:
    figure: Figure
    values: dict[str, list[float]]  # gateway's name: one value a round

    def median(self, gateway_name: str) -> float | None:
        values = self.values.get(gateway_name)
        return statistics.median(values) if values else None

    def ratio(self, gateway_name: str) -> float | None:
        """The median of the rounds' ratios to the relay: both sides of a ratio stood in the same weather.

        None where the relay's added time fell to zero or below in some round: leaving that round out would flatter.
        """
        pairs = list(zip(self.values.get(gateway_name, ()), self.values.get(RELAY.name, ()), strict=False))
        if not pairs or any(relay <= 0 for _, relay in pairs):
            return None
        return statistics.median(value / relay for value, relay in pairs)

    def verdict(self) -> Verdict:
        if self.figure.ratio_max is not None:
            bound, actual = self.figure.ratio_max, self.ratio(PENSTOCK.name)
        elif self.figure.value_max is not None:
            bound, actual = self.figure.value_max, self.median(PENSTOCK.name)
        else:
            return Verdict.NO_TARGET
        if actual is None:
            return Verdict.NOT_MEASURED
        return Verdict.KEPT if actual <= bound else Verdict.MISSED


def rows_of(samples: Samples) -> list[Row]:
    return [
        Row(figure, {name: list(values) for name, values in samples.values[figure.name].items()}) for figure in FIGURES
    ]


def table(rows: Sequence[Row], gateway_names: Sequence[str]) -> str:
    """One line a figure: medians with their spread; gateways other than Penstock carry their ratio beside them."""
    others = [name for name in gateway_names if name not in (RELAY.name, PENSTOCK.name)]
    head = ["figure", RELAY.name, PENSTOCK.name, "ratio", "target", "verdict", *others]
    lines = [head, *(_cells(row, others) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (lines[0], rule, *lines[1:])
    )


def _cells(row: Row, others: Sequence[str]) -> list[str]:
    return [
        row.figure.title,
        _value(row, RELAY.name),
        _value(row, PENSTOCK.name),
        _ratio(row, PENSTOCK.name),
        _target(row.figure),
        row.verdict().value,
        *(f"{_value(row, name)} ({_ratio(row, name)})" if row.values.get(name) else "-" for name in others),
    ]


def _value(row: Row, gateway_name: str) -> str:
    median = row.median(gateway_name)
    if median is None:
        return "-"
    text = f"{median:,.{row.figure.digits}f} {row.figure.unit}"
    values = row.values[gateway_name]
    return f"{text} ±{spread(values):.0%}" if len(values) > 2 else text


def _ratio(row: Row, gateway_name: str) -> str:
    ratio = row.ratio(gateway_name)
    return "-" if ratio is None else f"{ratio:.2f}x"


def _target(figure: Figure) -> str:
    if figure.ratio_max is not None:
        return f"<= {figure.ratio_max}x"
    return "-" if figure.value_max is None else f"<= {figure.value_max:,g} {figure.unit}"


def as_json(samples: Samples, gateway_names: Sequence[str], absent: Sequence[str]) -> dict[str, object]:
    """``totals`` are the times that those added were subtracted from, ``direct`` among them."""
    return {
        "context": {
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "versions": {name: version(name) for name in ("aiohttp", "uvloop")},
        },
        "absent": list(absent),
        "figures": [
            {
                "name": row.figure.name,
                "title": row.figure.title,
                "unit": row.figure.unit,
                "target": {"ratio_max": row.figure.ratio_max, "value_max": row.figure.value_max},
                "verdict": row.verdict().name.lower(),
                "gateways": {
                    name: {
                        "median": row.median(name),
                        "spread": spread(row.values[name]),
                        "ratio": row.ratio(name),
                        "rounds": row.values[name],
                    }
                    for name in gateway_names
                    if row.values.get(name)
                },
            }
            for row in rows_of(samples)
        ],
        "totals": {name: by_gateway for name, by_gateway in samples.values.items() if name.endswith("_total")},
    }
