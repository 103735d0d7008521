"""Counters, gauges and histograms in Prometheus' text form, under TGI's names and our own.

An own renderer, since the usual library appends `_total` to counters and TGI's boards would not
find them. Knows numbers and names; does not know requests.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from serving.engine.stats import StepReport

Labels = tuple[tuple[str, str], ...]
BATCH_SIZES = tuple(float(2**k) for k in range(11))
METHODS = ("prefill", "decode")
FAILURES = ("validation", "overloaded", "generation", "template", "dropped")
LABELS = (
    ("tgi_request_failure", "err", FAILURES),
    ("tgi_batch_inference_count", "method", METHODS),
    ("tgi_batch_inference_success", "method", METHODS),
    ("tgi_batch_inference_failure", "method", METHODS),
    ("tgi_batch_concat", "reason", ("backpressure", "chunking")),
)
DURATIONS = tuple(0.0001 * 1.5**k for k in range(1, 36))


def lengths(limit: int) -> tuple[float, ...]:
    """A hundred equal steps up to `limit`, as TGI buckets lengths."""
    return tuple(limit * step / 100 for step in range(1, 101))


class Histogram:
    """Counts of observations per bucket, their sum and number, for each set of labels."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self.buckets = tuple(buckets)
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = defaultdict(float)

    def observe(self, value: float, labels: Labels) -> None:
        """Count one value."""
        counts = self.counts.setdefault(labels, [0] * (len(self.buckets) + 1))
        counts[bisect.bisect_left(self.buckets, value)] += 1
        self.sums[labels] += value


class Metrics:
    """All series of one server; safe to use from several threads."""

    def __init__(self, max_input: int, max_total: int) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        seconds = (
            "request_duration",
            "request_validation_duration",
            "request_queue_duration",
            "request_inference_duration",
            "request_mean_time_per_token_duration",
            "batch_inference_duration",
            "batch_forward_duration",
            "batch_decode_duration",
            "batch_filter_duration",
            "batch_concat_duration",
        )
        self._histograms = {f"tgi_{name}": Histogram(DURATIONS) for name in seconds}
        self._histograms["tgi_batch_next_size"] = Histogram(BATCH_SIZES)
        for name in ("arena_time_to_first_token_seconds", "arena_inter_token_seconds"):
            self._histograms[name] = Histogram(DURATIONS)
        for name, limit in (
            ("request_generated_tokens", max_total),
            ("request_input_length", max_input),
            ("request_max_new_tokens", max_total),
            ("request_skipped_tokens", max_total),
        ):
            self._histograms[f"tgi_{name}"] = Histogram(lengths(limit))
        # Boards compute rates: a series has to be there before the first event.
        for name in ("tgi_request_count", "tgi_request_success"):
            self._counters[name][()] = 0.0
        for name, label, values in LABELS:
            for value in values:
                self._counters[name][_key({label: value})] = 0.0

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name][_key(labels)] += value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count a value in a histogram."""
        with self._lock:
            self._histograms[name].observe(value, _key(labels))

    def note_step(self, report: StepReport) -> None:
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
        lines: list[str] = []
        with self._lock:
            for name, series in sorted(self._counters.items()):
                lines += _series(name, "counter", series.items())
            for name, histogram in sorted(self._histograms.items()):
                lines += _buckets(name, histogram)
        for name, values in sorted(gauges.items()):
            kind = "counter" if name.endswith("_count") or "_success" in name else "gauge"
            lines += _series(name, kind, values.items())
        return "\n".join(lines) + "\n"


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _label_text(labels: Iterable[tuple[str, str]]) -> str:
    pairs = [f'{name}="{_escape(value)}"' for name, value in labels]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _series(name: str, kind: str, values: Iterable[tuple[Labels, float]]) -> list[str]:
    lines = [f"# TYPE {name} {kind}"]
    lines += [f"{name}{_label_text(labels)} {value:g}" for labels, value in values]
    return lines


def _buckets(name: str, histogram: Histogram) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for labels, counts in histogram.counts.items():
        running = 0
        for bound, count in zip((*histogram.buckets, float("inf")), counts, strict=True):
            running += count
            edge = "+Inf" if bound == float("inf") else f"{bound:.6g}"
            lines.append(f"{name}_bucket{_label_text([*labels, ('le', edge)])} {running}")
        lines.append(f"{name}_sum{_label_text(labels)} {histogram.sums[labels]:g}")
        lines.append(f"{name}_count{_label_text(labels)} {running}")
    return lines
