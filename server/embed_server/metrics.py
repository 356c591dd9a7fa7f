"""Every metric: its name, its help text and the one place that counts it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embed_runtime.runtime import Runtime
from embed_runtime.types import EmbedResult

# A short text takes about a millisecond, a large request of long ones many seconds.
SECONDS_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
)
COUNT_BUCKETS = tuple(2**power for power in range(0, 19, 2))


class Metrics:
    """What one app counts, in a registry of its own."""

    def __init__(self, runtime: Runtime, *, model: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(SchedulerCollector(runtime))
        ProcessCollector(registry=self.registry)
        info = Info("embed_model", "What is served.", registry=self.registry)
        info.info(
            {
                "model": model,
                "engine": runtime.engine_entry.backend,
                "precision": runtime.engine_entry.precision,
                "device": runtime.engine_entry.device,
            }
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
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Histogram(
            "embed_request_tokens",
            "Tokens of one embedded request as reported to its caller; the sum is the total.",
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_result(self, result: EmbedResult) -> None:
        """Count the work of one request that was embedded."""
        self._inputs.observe(len(result.num_tokens))
        self._tokens.observe(int(result.num_tokens.sum()))


class SchedulerCollector(Collector):
    """Reads the scheduler's own counts whenever somebody scrapes; nothing is counted twice."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Yield one snapshot."""
        stats = self._runtime.stats()
        for name, text, value in (
            ("embed_queue_inputs", "Inputs that wait for a batch.", stats.waiting_inputs),
            ("embed_queue_tokens", "Tokens that wait for a batch.", stats.waiting_tokens),
            ("embed_running_inputs", "Inputs in the engine.", stats.running_inputs),
            (
                "embed_padding_share",
                "Share of attention slots without a token since the start, 0 to 1.",
                stats.padding_share,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("embed_batches", "Batches the engine ran.", stats.batches),
            ("embed_batch_rows", "Rows of these batches.", stats.rows),
            ("embed_batch_tokens", "Tokens of these rows.", stats.tokens),
            (
                "embed_attention_slots",
                "Rows times the longest row of these batches; all above their tokens is padding.",
                stats.attention_slots,
            ),
            ("embed_deduplicated_inputs", "Inputs computed with a twin.", stats.deduplicated),
            ("embed_engine_seconds", "Time the engine ran.", stats.engine_seconds),
        ):
            yield CounterMetricFamily(name, text, value=value)
