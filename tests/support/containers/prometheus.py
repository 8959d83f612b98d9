"""The configuration of Prometheus in tests."""

import shutil
import urllib.parse
from pathlib import Path

import yaml

from tests.support.commands import ROOT
from tests.support.servers import ObservedServer


def write_configuration(path: Path, server: ObservedServer) -> Path:
    """Write deploy/prometheus/prometheus.yml with a fixed target instead of Docker's name service."""
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    [job] = configuration["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [urllib.parse.urlsplit(server.metrics_url).netloc]}]
    shutil.copy(ROOT / "deploy/prometheus/alerts.yml", path.parent)
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path
