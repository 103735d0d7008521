"""Counters, gauges and histograms of one server, under TGI's names and our own.

`prometheus_client` counts and writes them. What it appends to names, `_total` to counters and
series of creation times, is taken off: TGI's boards would not find a counter. Knows numbers and
names; does not know requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric

from serving.engine.stats import StepReport

Labels = tuple[tuple[str, str], ...]
BATCH_SIZES = tuple(float(2**k) for k in range(11))
DURATIONS = tuple(float(f"{0.0001 * 1.5**k:.6g}") for k in range(1, 36))
# A histogram's name, and its label if it has one.
TIMES = {
    "tgi_request_duration": (),
    "tgi_request_validation_duration": (),
    "tgi_request_queue_duration": (),
    "tgi_request_inference_duration": (),
    "tgi_request_mean_time_per_token_duration": (),
    "tgi_batch_inference_duration": ("method",),
    "tgi_batch_forward_duration": ("method",),
    "tgi_batch_decode_duration": ("method",),
    "tgi_batch_filter_duration": ("method",),
    "tgi_batch_concat_duration": ("method",),
    "arena_time_to_first_token_seconds": ("model",),
    "arena_inter_token_seconds": ("model",),
}
METHODS = ("prefill", "decode")
# A counter's name, its label, and the values that are known before the first event: boards
# compute rates, so that a series has to be there from the start.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tgi_request_count": ("", ()),
    "tgi_request_success": ("", ()),
    "tgi_request_failure": (
        "err",
        ("validation", "overloaded", "generation", "template", "dropped"),
    ),
    "tgi_batch_inference_count": ("method", METHODS),
    "tgi_batch_inference_success": ("method", METHODS),
    "tgi_batch_inference_failure": ("method", METHODS),
    "tgi_batch_concat": ("reason", ("backpressure", "chunking")),
    "arena_variant_requests_count": ("model", ()),
    "arena_variant_generated_tokens_count": ("model", ()),
}
# Help texts, which are empty, and what the library appends to a counter's name.
UNWANTED = re.compile(r"^# HELP .*\n|(?<=\w)_total(?= counter$)", re.MULTILINE)


def lengths(limit: int) -> tuple[float, ...]:
    """A hundred equal steps up to `limit`, as TGI buckets lengths."""
    return tuple(limit * step / 100 for step in range(1, 101))


class Metrics:
    """All series of one server; safe to use from several threads."""

    def __init__(self, max_input: int, max_total: int) -> None:
        self._registry = CollectorRegistry()
        # By name and the label's value: the library's own way to them costs more than the count.
        self._counts: dict[tuple[str, ...], Counter] = {}
        self._observed: dict[tuple[str, ...], Histogram] = {}
        self._counters = {name: self._new_counter(name) for name in COUNTERS}
        buckets = {
            **dict.fromkeys(TIMES, DURATIONS),
            "tgi_batch_next_size": BATCH_SIZES,
            "tgi_request_generated_tokens": lengths(max_total),
            "tgi_request_input_length": lengths(max_input),
            "tgi_request_max_new_tokens": lengths(max_total),
            "tgi_request_skipped_tokens": lengths(max_total),
        }
        self._histograms = {
            name: Histogram(name, "", TIMES.get(name, ()), buckets=edges, registry=self._registry)
            for name, edges in buckets.items()
        }

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (name, *labels.values())
        child = self._counts.get(key)
        if child is None:
            counter = self._counters[name]
            child = self._counts[key] = counter.labels(**labels) if labels else counter
        child.inc(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count a value in a histogram."""
        key = (name, *labels.values())
        child = self._observed.get(key)
        if child is None:
            histogram = self._histograms[name]
            child = self._observed[key] = histogram.labels(**labels) if labels else histogram
        child.observe(value)

    def count_step(self, report: StepReport) -> None:
        """Count a step of an engine under TGI's names; a step with prompt tokens is a prefill."""
        method = "prefill" if report.is_prefill else "decode"
        self.count("tgi_batch_inference_count", method=method)
        outcome = "failure" if report.failed else "success"
        self.count(f"tgi_batch_inference_{outcome}", method=method)
        self.observe("tgi_batch_inference_duration", report.seconds, method=method)
        self.observe("tgi_batch_forward_duration", report.forward_seconds, method=method)
        self.observe("tgi_batch_decode_duration", report.choose_seconds, method=method)
        self.observe("tgi_batch_filter_duration", report.filter_seconds, method=method)
        self.observe("tgi_batch_next_size", report.num_rows)
        if report.num_joined:
            self.observe("tgi_batch_concat_duration", report.join_seconds, method=method)
            if report.num_before:
                self.count("tgi_batch_concat", reason="backpressure")
        elif report.is_prefill:
            self.count("tgi_batch_concat", reason="chunking")

    def render(self, gauges: Mapping[str, Mapping[Labels, float]]) -> str:
        """Prometheus' text form; `gauges` and engine counters are read at this moment."""
        text = generate_latest(_Families(self._registry, gauges)).decode()
        return UNWANTED.sub("", text)

    def _new_counter(self, name: str) -> Counter:
        label, values = COUNTERS[name]
        counter = Counter(name, "", [label] if label else (), registry=self._registry)
        for value in values:
            counter.labels(value)
        return counter


class _Families:
    """What `generate_latest` asks for: a registry's families under their own names, and gauges."""

    def __init__(
        self, registry: CollectorRegistry, gauges: Mapping[str, Mapping[Labels, float]]
    ) -> None:
        self._registry = registry
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for family in sorted(self._registry.collect(), key=lambda family: family.name):
            family.samples = [
                sample._replace(name=sample.name.removesuffix("_total"))
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family
        for name, series in sorted(self._gauges.items()):
            gauge = Metric(name, "", "counter" if name.endswith("_count") else "gauge")
            for labels, value in series.items():
                gauge.add_sample(name, dict(labels), value)
            yield gauge
