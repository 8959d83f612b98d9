"""compose.yaml is valid and agrees with the server's options, the scraped address and the dashboard's path."""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cli.parser import build_parser
from serving.cli.statistics_options import find_statistics
from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S


def parse(command: list[str]) -> argparse.Namespace:
    """The options of `python -m serving`."""
    return build_parser(command[0]).parse_args(command)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(load("compose.yaml"))


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Path in the container -> source."""
    return {each.split(":")[1]: each.split(":")[0] for each in service["volumes"]}


def test_compose_yaml_follows_the_compose_specification() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    finished = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert finished.returncode == 0, finished.stdout


def test_the_command_and_the_health_check_parse(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    serve = parse(server["command"])
    assert (serve.listen, serve.http, serve.metrics) == ("0.0.0.0:50051", "0.0.0.0:8080", "0.0.0.0:9464")
    assert mounts(server)[str(serve.models)] == "./models"
    assert mounts(server)[str(serve.state)] == "state"
    test = server["healthcheck"]["test"]
    assert test[:4] == ["CMD", "python", "-m", "serving"]
    health = parse(test[4:])
    assert health.server == "127.0.0.1:50051"
    assert health.timeout < float(server["healthcheck"]["timeout"].rstrip("s"))
    assert serve.grace < float(server["stop_grace_period"].rstrip("s"))


def test_the_image_is_a_target_of_the_dockerfile_with_the_same_ports_and_paths(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    target = re.search(rf"^FROM \S+ AS {server['build']['target']}$(.*?)(?=^FROM|\Z)", dockerfile, re.M | re.S)
    assert target
    command = re.search(r"^CMD (\[.*\])$", target[1], re.M)
    assert command
    serve = parse(json.loads(command[1]))
    assert (str(serve.models), str(serve.state)) == ("/models", "/state")
    assert (serve.listen, serve.http) == ("0.0.0.0:50051", "0.0.0.0:8080")
    assert "EXPOSE 50051 8080\n" in target[1]


def test_every_image_command_of_the_dockerfile_parses() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    checks = [json.loads(each) for each in re.findall(r"^ +CMD (\[.*\])$", dockerfile, re.M)]
    assert len(checks) == 2
    for check in checks:
        assert parse(check[3:]).server == "127.0.0.1:50051"


def test_published_ports_are_reachable_from_this_machine_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert [port.rpartition(":")[2] for port in published] == ["50051", "8080", "9090", "3000"]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_each_service_has_a_health_check_and_waits_for_those_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"server", "postgres", "prometheus", "grafana"}
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            assert how == {"condition": "service_healthy"}


def test_secrets_are_files_and_not_environment_variables(compose: dict[str, Any]) -> None:
    declared = compose["secrets"]
    assert all(secret["file"].startswith("./secrets/") for secret in declared.values())
    used = set()
    for service in compose["services"].values():
        used |= set(service.get("secrets", []))
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|STATISTICS|SECRET|KEY", name):
                assert name.endswith("_FILE"), name
                assert Path(value).parent == Path("/run/secrets")
                assert Path(value).name in service["secrets"]
    assert used == set(declared)
    assert "/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_prometheus_scrapes_the_server_s_metrics(compose: dict[str, Any]) -> None:
    prometheus = compose["services"]["prometheus"]
    place = mounts(prometheus)["/etc/prometheus/prometheus.yml"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in prometheus["command"]
    [rules] = load(place)["rule_files"]  # beside it
    assert load(mounts(prometheus)[f"/etc/prometheus/{rules}"])["groups"]
    (job,) = load(place)["scrape_configs"]
    (target,) = job["dns_sd_configs"]
    assert target["names"] == ["server"]
    serve = parse(compose["services"]["server"]["command"])
    assert serve.metrics.rpartition(":")[2] == str(target["port"])


def test_grafana_finds_prometheus_and_the_dashboard(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    places = mounts(grafana)
    provisioning = places["/etc/grafana/provisioning"]
    (source,) = load(f"{provisioning}/datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    published = compose["services"]["prometheus"]["ports"][0].split(":")[-1]
    assert source["url"] == f"http://prometheus:{published}"
    (provider,) = load(f"{provisioning}/dashboards/pawserve.yml")["providers"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == provider["options"]["path"]
    dashboard = load(places[home])
    assert dashboard["panels"]
    assert [each["type"] for each in dashboard["templating"]["list"]][0] == "datasource"


def test_the_commands_of_the_docs_create_the_secrets(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    script = next(block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "secrets/" in block)
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=LIMIT_S)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    for secret in compose["secrets"].values():
        path = tmp_path / secret["file"]
        assert path.stat().st_mode & 0o777 == 0o444  # the containers' users differ; the folder keeps others out
        assert len(path.read_text().strip()) >= 32
    monkeypatch.delenv("PAWSERVE_STATISTICS", raising=False)
    monkeypatch.setenv("PAWSERVE_STATISTICS_FILE", str(tmp_path / "secrets" / "statistics-url"))
    password = (tmp_path / "secrets" / "postgres-password").read_text().strip()
    user, database = (compose["services"]["postgres"]["environment"][f"POSTGRES_{name}"] for name in ("USER", "DB"))
    assert find_statistics(None) == f"postgresql://{user}:{password}@postgres/{database}"


def test_the_images_are_labelled_with_the_project_s_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"^ARG VERSION=(\S+)$", dockerfile, re.M)) == {project["version"]}
