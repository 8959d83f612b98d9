"""What a server reports about itself. Separate, so that reading the settings loads none of the libraries."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ObservabilitySettings:
    """Metrics, access log and traces."""

    metrics: str | None = None
    """HOST:PORT of the Prometheus endpoint; None for none."""
    endpoint: bool = True
    """Whether this process serves the endpoint; otherwise it only counts, for one that collects from several."""
    access_log: bool = False
    """Whether each call is logged when it ends."""
    otlp_endpoint: str | None = None
    """URL of an OpenTelemetry collector that takes OTLP over gRPC; None for no traces."""
