"""Numbers for Prometheus, read when it asks for them.

The parts count in plain integers of their own, so that a packet pays for nothing but an addition.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `exposition`; prometheus.io, "Exposition formats"."""

Numbers = Mapping[str, float]
"""One for each value of a label."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table in `readings.py`."""

    kind: Literal["counter", "gauge"]
    name: str
    """Without `pxeboot_` in front and, for a counter, `_total` behind."""
    words: str
    label: str
    """Its name; empty for a metric that is one number, whose value's name is empty too."""
    read: Callable[[], Numbers | Awaitable[Numbers]]


class _Families(Collector):
    """What prometheus-client writes out."""

    def __init__(self) -> None:
        self.made: list[CounterMetricFamily | GaugeMetricFamily] = []

    def add(self, metric: Metric, numbers: Numbers) -> None:
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        labels = [metric.label] if metric.label else []
        family = make(f"pxeboot_{metric.name}", metric.words, labels=labels)
        for value, number in numbers.items():
            family.add_metric([value] if metric.label else [], number)
        self.made.append(family)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        return iter(self.made)


async def exposition(metrics: list[Metric]) -> bytes:
    """All of them as they are now, in Prometheus's text format 0.0.4."""
    families = _Families()
    for metric in metrics:
        numbers = metric.read()
        families.add(metric, await numbers if inspect.isawaitable(numbers) else numbers)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(families)
    return generate_latest(registry)
