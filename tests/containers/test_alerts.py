"""The alert rules, tested by promtool; one alert goes from a real server through Prometheus to Alertmanager."""

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.containers.prometheus import write_configuration
from tests.support.servers import observed_server
from tests.support.waiting import LIMIT_S, eventually

RULES = ROOT / "deploy/prometheus/alerts.yml"
HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the rules."""
    for name in ("prometheus", "promtool"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}: apt-get install prometheus")
    shutil.copy(RULES, tmp_path)
    return tmp_path


def alerts() -> set[str]:
    return {
        rule["alert"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_each_alert_fires_for_its_cause_only(folder: Path, measured: list[dict[str, object]]) -> None:
    told = Path(shutil.copy(HERE / "alerts.test.yml", folder))
    tests = yaml.safe_load(told.read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each.get("exp_alerts")}
    assert fired == alerts()
    for command in (["check", "rules", RULES.name], ["test", "rules", told.name]):
        finished = subprocess.run(
            ["promtool", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
    measured.append(
        {"what": "alert rules", "fired and silent as promtool was told": f"{len(fired)} of {len(alerts())}"}
    )


def test_the_alert_on_a_failed_version_reaches_alertmanager_s_receiver(folder: Path) -> None:
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("needs Alertmanager: apt-get install prometheus-alertmanager")
    write_bundle(folder / "models")
    with observed_server(folder, "--poll-seconds", 1) as server:
        write_bundle(folder / "models", version=2, content=b"half a file")
        path = write_configuration(folder / "prometheus.yml", server)
        rules = (folder / RULES.name).read_text()
        (folder / RULES.name).write_text(rules.replace("for: 1m", "for: 1s"))
        manager = free_address()
        configuration = yaml.safe_load(path.read_text())
        configuration["global"]["evaluation_interval"] = "1s"
        configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]}
        path.write_text(yaml.safe_dump(configuration))
        (folder / "alertmanager.yml").write_text("route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n")
        of_the_manager = [
            "--config.file=alertmanager.yml",
            f"--web.listen-address={manager}",
            "--cluster.listen-address=",
        ]
        of_prometheus = [f"--config.file={path}", f"--web.listen-address={free_address()}"]
        with (
            running(folder, "prometheus-alertmanager", *of_the_manager, "--storage.path=notified"),
            running(folder, "prometheus", *of_prometheus, "--storage.tsdb.path=data"),
        ):
            assert eventually(lambda: bool(received(manager))), (folder / "prometheus.log").read_text()
            [alert] = received(manager)
    assert alert["labels"]["alertname"] == "PawserveModelRefused"
    assert alert["labels"].items() >= {"severity": "warning", "job": "pawserve", "version": "2"}.items()
    assert alert["annotations"]["summary"].startswith("Version 2 of colours failed to load")


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("w") as log, subprocess.Popen(command, cwd=folder, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def received(manager: str) -> list[dict[str, Any]]:
    """The alerts that Alertmanager holds."""
    try:
        with urllib.request.urlopen(f"http://{manager}/api/v2/alerts", timeout=LIMIT_S) as answer:
            return list(json.load(answer))
    except OSError:  # it is not up yet
        return []
