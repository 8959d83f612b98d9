"""The metrics of a real server: values, format, conventions, and the dashboard and alerts that use them."""

import itertools
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from serving.bundle.validation import ValidationPredictions
from serving.client import Client, ClientError, Prediction
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, run
from tests.support.images import RED
from tests.support.servers import ObservedServer, observed_server
from tests.support.waiting import LIMIT_S, eventually

MODEL = {"model": "colours", "version": "1"}
CLASSIFY = {"method": "pawserve.v1.Classifier/Classify"}
DASHBOARD = ROOT / "deploy" / "grafana" / "pawserve.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    """Has classified 3 red images and a bad one with 2 views each, recorded 2 labels, and rejected a request."""
    folder = tmp_path_factory.mktemp("observed")
    write_bundle(folder / "models")
    with observed_server(folder, "--max-batch-size", 4) as server:
        with Client(server.address, timeout_s=LIMIT_S) as client:
            results = client.classify([RED, RED, b"no image", RED], views=2).results
            tokens = [result.token for result in results if isinstance(result, Prediction)]
            client.record_labels([(tokens[0], "red"), (tokens[1], "blue"), ("no token", "red")])
            with pytest.raises(ClientError):
                client.classify([RED], views=99)
        assert eventually(lambda: server.metric("pawserve_rows_total", **MODEL) == 6)
        yield server


@pytest.fixture
def drifted(tmp_path: Path) -> Iterator[ObservedServer]:
    """Has a version whose predictions are compared with those on its validation images."""
    counted = ValidationPredictions.count([0, 1, 2] * 20, [0.4, 0.5, 0.6] * 20, 3)
    accuracy = {"value": 0.9, "lower": 0.8, "upper": 0.95}
    write_bundle(tmp_path / "models", metrics={"accuracy": accuracy, "n": 10, "predictions": counted.to_fields()})
    with observed_server(tmp_path) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([RED] * 60)
        yield server


def test_requests_are_counted_by_method_and_code(server: ObservedServer) -> None:
    assert server.metric("pawserve_requests_total", **CLASSIFY, code="OK") == 1
    assert server.metric("pawserve_requests_total", **CLASSIFY, code="INVALID_ARGUMENT") == 1
    assert server.metric("pawserve_request_duration_seconds_count", **CLASSIFY) == 2
    assert server.metric("pawserve_requests_in_flight", **CLASSIFY) == 0


def test_images_rows_and_batches_are_counted_by_model(server: ObservedServer) -> None:
    assert server.metric("pawserve_images_total", **MODEL, result="ok") == 3
    assert server.metric("pawserve_images_total", **MODEL, result="NOT_AN_IMAGE") == 1
    calls = server.metric("pawserve_engine_duration_seconds_count", **MODEL)
    assert calls is not None
    assert 2 <= calls <= 6  # 6 rows, at most 4 of them in a call
    assert server.metric("pawserve_batch_rows_count", **MODEL) == calls
    assert server.metric("pawserve_batch_rows_sum", **MODEL) == 6
    assert server.metric("pawserve_rows_in_flight", **MODEL) == 0
    assert server.metric("pawserve_rows_in_flight_limit", **MODEL) == 1024


def test_requests_and_their_stages_are_timed(server: ObservedServer) -> None:
    for stage in ("queue", "prepare"):
        assert server.metric(f"pawserve_{stage}_duration_seconds_count", **MODEL) == 3
    for stage, labels in (("queue", MODEL), ("prepare", MODEL), ("engine", MODEL), ("request", CLASSIFY)):
        sum_s = server.metric(f"pawserve_{stage}_duration_seconds_sum", **labels)
        assert sum_s is not None
        assert sum_s > 0


def test_labels_and_accuracy_are_reported(server: ObservedServer) -> None:
    assert server.metric("pawserve_labels_recorded_total", **MODEL, right="true") == 1
    assert server.metric("pawserve_labels_recorded_total", **MODEL, right="false") == 1
    assert server.metric("pawserve_labels", **MODEL) == 2
    assert server.metric("pawserve_predictions", **MODEL) == 3
    assert server.metric("pawserve_accuracy_ratio", **MODEL) == 0.5
    lower = server.metric("pawserve_accuracy_lower_ratio", **MODEL)
    upper = server.metric("pawserve_accuracy_upper_ratio", **MODEL)
    assert lower == pytest.approx(0.0945, abs=1e-4)  # Wilson's interval of 1 in 2, by statsmodels
    assert upper == pytest.approx(0.9055, abs=1e-4)
    assert server.metric("pawserve_statistics_up") == 1
    assert server.metric("pawserve_validation_accuracy_ratio", **MODEL) == 0.9
    assert server.metric("pawserve_validation_accuracy_lower_ratio", **MODEL) == 0.8


def test_model_build_and_process_are_described(server: ObservedServer) -> None:
    families = {family.name: family for family in text_string_to_metric_families(server.scrape())}
    (model,) = families["pawserve_model_info"].samples
    assert model.labels.items() >= MODEL.items()
    assert "onnxruntime" in model.labels["engine"]
    (build,) = families["pawserve_build_info"].samples
    assert {"version", "python", "onnxruntime"} <= set(build.labels)
    assert families["process_resident_memory_bytes"].samples[0].value > 10e6


def test_unknown_methods_share_one_series(server: ObservedServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for number in range(5):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(f"/invented/Method{number}")(b"", timeout=LIMIT_S)
    assert server.metric("pawserve_requests_total", method="unknown", code="UNIMPLEMENTED") == 5
    assert "invented" not in server.scrape()


def test_the_metrics_follow_prometheus_s_conventions(server: ObservedServer) -> None:
    families = list(text_string_to_metric_families(server.scrape()))
    strict = list(openmetrics.text_string_to_metric_families(server.scrape("application/openmetrics-text")))
    assert len(strict) == len(families)
    for family in families:
        if not family.name.startswith("pawserve_"):
            continue
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", family.name)
        assert not re.search(r"_(ms|millis|milliseconds|percent|count|sum|bucket|minutes|kb)(_|$)", family.name)
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            if family.type == "histogram" and "duration" in family.name:
                assert family.name.endswith("_seconds")
        if family.type == "histogram":
            assert family.samples, family.name


def test_exactly_the_metrics_are_documented(server: ObservedServer) -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(pawserve_\w+)`", page, re.MULTILINE))
    assert documented == metric_names(server)


def metric_names(server: ObservedServer) -> set[str]:
    """Names as in the documentation: counters with _total, histograms without their suffixes."""
    names = set()
    for family in text_string_to_metric_families(server.scrape()):
        if family.name.startswith("pawserve_"):
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def check_expressions(servers: list[ObservedServer], expressions: list[str]) -> None:
    """Check that the expressions use only metrics and labels that exist on one of the servers."""
    of_prometheus = {"job", "instance", "namespace"}
    series: dict[str, set[str]] = {"up": of_prometheus}
    for family in itertools.chain(*(text_string_to_metric_families(server.scrape()) for server in servers)):
        for sample in family.samples:
            series.setdefault(sample.name, set(of_prometheus)).update(sample.labels)
    for expression in expressions:
        used = re.findall(r"\b((?:pawserve|process|python)_\w+|up\b)", expression)
        assert used, expression
        assert set(used) <= set(series), expression
        for name, selector in re.findall(r"\b((?:pawserve|process)_\w+|up)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= series[name], expression
        for labels in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            known = set().union(*(series[name] for name in used))
            assert {label.strip() for label in labels.split(",")} <= known, expression


def test_the_dashboard_uses_only_metrics_and_labels_that_exist(server: ObservedServer) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert len(expressions) >= 15
    check_expressions([server], expressions)


def test_the_alerts_use_only_metrics_and_labels_that_exist_and_are_documented(
    server: ObservedServer, drifted: ObservedServer
) -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    expressions = [rule["expr"] for rule in rules]
    for name in recorded:  # replaced by its expression
        expressions = [expression.replace(name, f"({recorded[name]})") for expression in expressions]
    check_expressions([server, drifted], expressions)
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    alerts = [(rule["alert"], rule["labels"]["severity"]) for rule in rules if "alert" in rule]
    assert re.findall(r"^\| `(Pawserve\w+)` \| (\w+) ", page, re.MULTILINE) == alerts
    [operators] = yaml.safe_load_all((ROOT / "deploy/kubernetes/prometheusrule.yaml").read_text(encoding="utf-8"))
    assert operators["spec"]["groups"] == groups


def test_the_dashboard_s_panels_do_not_overlap_and_their_ids_are_unique() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_idle_connections_do_not_block_scrapes_for_ever(server: ObservedServer) -> None:
    host, port = re.match(r"http://([\d.]+):(\d+)", server.metrics_url).groups()  # type: ignore[union-attr]
    silent = [socket.create_connection((host, int(port))) for _ in range(30)]
    try:
        assert eventually(lambda: is_scrapable(server))
    finally:
        for connection in silent:
            connection.close()


def is_scrapable(server: ObservedServer) -> bool:
    try:
        server.scrape()
    except OSError:
        return False
    return True


def test_concurrent_scrapes_agree(server: ObservedServer) -> None:
    before = server.metric("pawserve_images_total", **MODEL, result="ok")
    seen: list[float | None] = []

    def read() -> None:
        seen.append(server.metric("pawserve_images_total", **MODEL, result="ok"))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert seen == [before] * 4


def test_an_unusable_address_of_the_metrics_prevents_the_start(server: ObservedServer, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    taken = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    common = ["--models", tmp_path / "models", "--state", tmp_path / "state", "--listen", "127.0.0.1:0"]
    for address, code, message in ((taken, 1, "with --metrics"), ("9464", 2, "write HOST:PORT")):
        finished = run("serving", "serve", *common, "--metrics", address)
        assert finished.returncode == code
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr
