"""What a server under test tells Prometheus."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.commands import Observed


def scrape(server: Observed, accept: str = "text/plain") -> str:
    """All its metrics, in the format that is accepted."""
    request = urllib.request.Request(server.metrics_url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def value(server: Observed, name: str, **labels: str) -> float | None:
    """A sample's value; None if there is none with these labels."""
    for family in text_string_to_metric_families(scrape(server)):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None
