"""Every metric: its name, its help text and the one place that counts it."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embed_runtime.stats import SchedulerStats
from embed_runtime.types import EmbedResult
from embed_server.served_model import ServedModel

# A short text takes about a millisecond, a large request of long ones many seconds.
SECONDS_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
)
COUNT_BUCKETS = tuple(2**power for power in range(0, 19, 2))

# What the scheduler counts: name, help text, how to read it.
GAUGES: Sequence[tuple[str, str, Callable[[SchedulerStats], float]]] = (
    ("embed_queue_inputs", "Inputs that wait for a batch.", lambda s: s.waiting_inputs),
    ("embed_queue_tokens", "Tokens that wait for a batch.", lambda s: s.waiting_tokens),
    ("embed_running_inputs", "Inputs in the engine.", lambda s: s.running_inputs),
    (
        "embed_padding_share",
        "Share of attention slots without a token since the start, 0 to 1.",
        lambda s: s.padding_share,
    ),
    ("embed_cache_bytes", "Memory of the results that are kept.", lambda s: s.cache.num_bytes),
    ("embed_cache_entries", "Results that are kept.", lambda s: s.cache.entries),
)
COUNTERS: Sequence[tuple[str, str, Callable[[SchedulerStats], float]]] = (
    ("embed_batches", "Batches the engine ran.", lambda s: s.batches),
    ("embed_batch_rows", "Rows of these batches.", lambda s: s.rows),
    ("embed_batch_tokens", "Tokens of these rows.", lambda s: s.tokens),
    (
        "embed_attention_slots",
        "Rows times the longest row of these batches; all above their tokens is padding.",
        lambda s: s.attention_slots,
    ),
    ("embed_deduplicated_inputs", "Inputs computed with a twin.", lambda s: s.deduplicated),
    ("embed_engine_seconds", "Time the engine ran.", lambda s: s.engine_seconds),
    ("embed_cache_hits", "Inputs answered by a kept result.", lambda s: s.cache.hits),
    ("embed_cache_misses", "Inputs for which no result was kept.", lambda s: s.cache.misses),
)


class Metrics:
    """What one app counts, in a registry of its own."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(SchedulerCollector(models))
        ProcessCollector(registry=self.registry)
        info = Info("embed_model", "What is served.", ["model"], registry=self.registry)
        for model in models:
            entry = model.runtime.engine_entry
            info.labels(model.name).info(
                {"engine": entry.backend, "precision": entry.precision, "device": entry.device}
            )
        self._requests = Counter(
            "embed_requests",
            "Requests answered, by route and HTTP status (499: the client left first).",
            ["route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "embed_request_seconds",
            "From a request's headers to the end of its answer, by route.",
            ["route"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._inputs = Histogram(
            "embed_request_inputs",
            "Inputs of one embedded request.",
            ["model"],
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Histogram(
            "embed_request_tokens",
            "Tokens of one embedded request as reported to its caller; the sum is the total.",
            ["model"],
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        # Looking labels up takes the library longer than counting.
        self._of_answer = cache(self._find_answer)
        self._of_route = cache(self._find_route)
        self._of_model = cache(self._find_model)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._of_answer(route, status).inc()
        self._of_route(route).observe(seconds)

    def observe_results(self, model: str, results: Sequence[EmbedResult]) -> None:
        """Count the work of one request that was embedded, in one way or in several."""
        inputs, tokens = self._of_model(model)
        inputs.observe(sum(len(result.num_tokens) for result in results))
        tokens.observe(sum(int(result.num_tokens.sum()) for result in results))

    def _find_answer(self, route: str, status: int) -> Counter:
        return self._requests.labels(route, str(status))

    def _find_route(self, route: str) -> Histogram:
        return self._seconds.labels(route)

    def _find_model(self, name: str) -> tuple[Histogram, Histogram]:
        return self._inputs.labels(name), self._tokens.labels(name)


class SchedulerCollector(Collector):
    """Reads the schedulers' own counts whenever somebody scrapes; nothing is counted twice."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = tuple(models)

    def collect(self) -> Iterator[Metric]:
        """Yield one snapshot of every model."""
        snapshots = [(model.name, model.runtime.stats()) for model in self._models]
        for family_class, rows in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, text, read in rows:
                family = family_class(name, text, labels=["model"])
                for model, stats in snapshots:
                    family.add_metric([model], read(stats))
                yield family
