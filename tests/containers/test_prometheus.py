"""A real Prometheus scrapes a real server as compose.yaml configures it: every panel of the dashboard has data."""

import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import pytest
import yaml

from serving.client import Client, ClientError, Prediction
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.containers.prometheus import write_configuration
from tests.support.images import RED
from tests.support.servers import observed_server
from tests.support.waiting import LIMIT_S, eventually

RATE_INTERVAL = "6s"
"""What Grafana puts for $__rate_interval: some scrapes, of which there is one a second here."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that scrapes a server with clients, bad requests and a version that failed to load."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    write_bundle(folder / "models")
    with observed_server(folder, "--poll-seconds", 1) as server, asking(server.address):
        write_bundle(folder / "models", version=2, content=b"half a file")
        configuration = write_configuration(folder / "prometheus.yml", server)
        subprocess.run(["promtool", "check", "config", configuration], check=True, capture_output=True, timeout=LIMIT_S)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen([program, *options, f"--web.listen-address={address}"], stderr=log) as process,
        ):
            try:
                yield f"http://{address}"
            finally:
                process.terminate()


@contextmanager
def asking(address: str) -> Iterator[None]:
    """Send predictions, labels and bad requests all the time."""
    stopping = threading.Event()

    def ask() -> None:
        with Client(address) as client:
            while not stopping.wait(0.1):
                [result, _] = client.classify([RED, b"no picture"]).results
                assert isinstance(result, Prediction)
                client.record_labels([(result.token, "red")])
                with pytest.raises(ClientError):
                    client.classify([RED], views=99)

    client_thread = threading.Thread(target=ask)
    client_thread.start()
    try:
        yield
    finally:
        stopping.set()
        client_thread.join()


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The current series of an expression."""
    address = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(address, timeout=LIMIT_S) as answer:
        return list(json.load(answer)["data"]["result"])


def values(prometheus: str, expression: str) -> list[float]:
    """The finite values of an expression."""
    try:
        numbers = [float(series["value"][1]) for series in query(prometheus, expression)]
    except OSError:  # it is not up yet
        return []
    return [number for number in numbers if isfinite(number)]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy/grafana/pawserve.json").read_text(encoding="utf-8")))


def test_every_panel_of_the_dashboard_has_data(prometheus: str, measured: list[dict[str, object]]) -> None:
    """The variables have a value, and series have the labels that the legends name."""
    panels = {
        (panel["title"], target["expr"]): set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    }
    lacking: list[object] = []

    def all_have_data() -> bool:
        lacking[:] = []
        for (title, expression), labels in panels.items():
            for variable, chosen in (("$__rate_interval", RATE_INTERVAL), ("$job", "pawserve"), ("$model", "colours")):
                expression = expression.replace(variable, chosen)
            if not values(prometheus, expression):
                lacking.append((title, expression))
            elif missing := [each for each in query(prometheus, expression) if not labels <= each["metric"].keys()]:
                lacking.append((title, labels, missing[0]["metric"]))
        return not lacking

    assert eventually(all_have_data), lacking
    assert any(panels.values())
    measured.append({"what": "dashboard", "queries with data": f"{len(panels)} of {len(panels)}"})


def test_the_dashboard_s_variables_have_choices(prometheus: str) -> None:
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            assert eventually(lambda name=series: bool(query(prometheus, name)))  # type: ignore[misc]
            assert {each["metric"][label] for each in query(prometheus, series)} <= {"pawserve", "colours"}


def test_the_queries_of_the_docs_and_the_autoscaler_return_data(prometheus: str) -> None:
    docs = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    block = docs[docs.index("Some questions") :].split("```")[1]
    asked = [line.replace("5m", RATE_INTERVAL) for line in block.splitlines() if line and not line.startswith("#")]
    assert len(asked) >= 4
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    [rule] = adapter["rules"]["custom"]
    series = rule["name"]["matches"]
    of_the_adapter = rule["metricsQuery"].replace("<<.GroupBy>>", "instance").replace("<<.Series>>", series)
    asked.append(of_the_adapter.replace("<<.LabelMatchers>>", "").replace("1m", RATE_INTERVAL))
    alarm = "pawserve_accuracy_upper_ratio < 0.95"
    for expression in asked:
        if expression == alarm:  # all labels agree with the predictions, so it must not fire
            assert query(prometheus, expression) == []
            assert values(prometheus, expression.partition(" <")[0]) == [1.0]
        elif "RESOURCE_EXHAUSTED" not in expression:  # no request was rejected
            assert eventually(lambda asks=expression: bool(values(prometheus, asks))), expression  # type: ignore[misc]
