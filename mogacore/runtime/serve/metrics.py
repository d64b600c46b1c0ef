"""Metrics in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as render

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What ``GET /metrics`` reports: requests, batches, waiting images, and memory and CPU time of the process."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter('mogacore_requests', 'Answered requests', ['route', 'status'], registry=self.registry)
        self.request_seconds = Histogram(
            'mogacore_request_seconds', 'Time from the first byte to the answer', ['route'], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_images = Histogram(
            'mogacore_batch_images', 'Images per batch', ['model'], buckets=BATCH_SIZES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            'mogacore_batch_seconds', 'Time to predict a batch', ['model'], buckets=SECONDS, registry=self.registry
        )
        self.waiting = Gauge('mogacore_waiting_images', 'Images in the queue', ['model'], registry=self.registry)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template of its path, of which there are few."""
        self.requests.labels(route, status).inc()
        self.request_seconds.labels(route).observe(seconds)

    def observe_batch(self, model: str, num_images: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_images.labels(model).observe(num_images)
        self.batch_seconds.labels(model).observe(seconds)

    def num_answered(self) -> int:
        """Number of answered requests, whatever their status."""
        samples = (sample for metric in self.requests.collect() for sample in metric.samples)
        return sum(round(sample.value) for sample in samples if sample.name.endswith('_total'))

    def render(self) -> bytes:
        """All metrics as text."""
        return render(self.registry)
