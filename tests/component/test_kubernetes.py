"""The manifests of deploy/kubernetes follow Kubernetes's schemas and agree with the server."""

import argparse
import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import kubernetes_validate
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.cli.serve_options import add_serve_options, to_settings
from serving.observability.metrics import Metrics
from serving.settings import Settings
from serving.tokens.keyring import Keyring
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, run
from tests.support.kustomize import KUBERNETES, Manifest, build, load, one
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: the oldest that the manifests are written for, and the newest that has been looked at."""


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """All manifests of one overlay."""
    engines = build(KUBERNETES / "engines") if request.param == "gpu" else []
    return [
        *build(KUBERNETES / "namespace"),
        *engines,
        *load(KUBERNETES / "loader.yaml"),
        *build(KUBERNETES / request.param),
    ]


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "Pod":
            yield manifest["spec"]


def server(manifests: list[Manifest]) -> Manifest:
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def settings_of(manifests: list[Manifest]) -> Settings:
    """The settings that the server parses from the deployment's arguments."""
    command, *flags = server(manifests)["args"]
    assert command == "serve"
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    return to_settings(parser.parse_args(flags))


def test_every_manifest_follows_the_published_schemas(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_server_accepts_the_arguments_and_listens_on_the_ports_of_the_manifests(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    ports = {port["name"]: port["containerPort"] for port in server(manifests)["ports"]}
    assert settings.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.http.listen == f"0.0.0.0:{ports['http']}"
    assert settings.http.required  # a pod without it does not become ready
    assert settings.observability.metrics == f"0.0.0.0:{ports['metrics']}"
    annotations = one(manifests, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    offered = {port["name"]: port for port in one(manifests, "Service")["spec"]["ports"]}
    assert {name: (port["targetPort"], port["port"]) for name, port in offered.items()} == {
        name: (name, ports[name]) for name in ("grpc", "http")
    }
    assert {name: port["appProtocol"] for name, port in offered.items()} == {"grpc": "grpc", "http": "http"}


def test_the_network_policy_admits_clients_to_the_service_and_prometheus_to_the_metrics(
    manifests: list[Manifest],
) -> None:
    clients, monitoring = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert clients["from"] == [{"namespaceSelector": {"matchLabels": {"pawserve/client": "true"}}}]
    assert [port["port"] for port in clients["ports"]] == [
        port["targetPort"] for port in one(manifests, "Service")["spec"]["ports"]
    ]
    assert [port["port"] for port in monitoring["ports"]] == ["metrics"]


def test_pods_have_time_to_finish_requests_in_flight(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    waits = server(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.grace_s
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > waits


def test_only_folders_that_the_server_writes_are_mounted_writable(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in server(manifests)["volumeMounts"]}
    assert mounts[str(settings.models)]
    assert not mounts[str(settings.state)]
    assert settings.token_key is not None
    assert mounts[str(settings.token_key.parent)]
    for pod in pods(manifests):
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} == volumes


def test_pods_follow_the_restricted_security_standard(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_pods_run_as_the_user_of_the_image(manifests: list[Manifest]) -> None:
    dockerfile = ROOT / "Dockerfile"
    if not dockerfile.exists():
        pytest.skip("there is no Dockerfile to compare with")
    users = set(re.findall(r"^USER (\d+):(\d+)$", dockerfile.read_text(), re.MULTILINE))
    for pod in pods(manifests):
        context = pod["securityContext"]
        assert users == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


def test_selectors_match_the_pods(manifests: list[Manifest]) -> None:
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        one(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        one(manifests, "Service")["spec"]["selector"],
        one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)
    assert one(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "pawserve"
    assert "replicas" not in one(manifests, "Deployment")["spec"]  # or each apply would undo the autoscaler's work


def test_a_rollout_keeps_each_pod_until_a_new_one_is_ready(manifests: list[Manifest]) -> None:
    strategy = one(manifests, "Deployment")["spec"]["strategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_only_the_gpu_overlay_requests_gpus() -> None:
    limits = {
        name: [each["resources"]["limits"] for pod in pods(build(KUBERNETES / name)) for each in pod["containers"]]
        for name in ("cpu", "gpu")
    }
    assert not any("nvidia.com/gpu" in each for each in limits["cpu"])
    assert [each["nvidia.com/gpu"] for each in limits["gpu"]] == ["1"]


def test_the_job_builds_engines_of_the_same_models_in_the_folder_of_the_servers(tmp_path: Path) -> None:
    deployed, jobs = build(KUBERNETES / "gpu"), build(KUBERNETES / "engines")
    template = one(jobs, "Job", "pawserve-engines")["spec"]["template"]
    [builder] = template["spec"]["containers"]
    arguments = [each.replace("/models", str(tmp_path)) for each in builder["args"]]
    finished = subprocess.run(
        [sys.executable, ROOT / "deploy/containers/serve_gpu.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAWSERVE_ENGINES": str(tmp_path / "engines")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert (finished.returncode, "holds no model" in finished.stderr) == (1, True)  # it knows its arguments
    assert set(builder["args"][1:]) <= set(server(deployed)["args"])
    [environment] = builder["env"]
    assert environment in server(deployed)["env"]
    volumes = one(deployed, "Deployment")["spec"]["template"]["spec"]["volumes"]
    for volume in template["spec"]["volumes"]:  # the same room for a model while its engine is built, too
        assert volume in volumes
    assert {mount["mountPath"] for mount in builder["volumeMounts"]} <= {
        mount["mountPath"] for mount in server(deployed)["volumeMounts"]
    }


def test_the_autoscaler_s_metric_is_derived_from_a_metric_of_the_server(manifests: list[Manifest]) -> None:
    wanted = one(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    [rule] = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == wanted
    series = rule["name"]["matches"]
    assert rule["seriesQuery"].startswith(series + "{")
    assert series.removesuffix("_sum") in {metric.name for metric in Metrics().registry.collect()}


def test_the_operator_s_monitor_names_the_port_of_the_pods(manifests: list[Manifest]) -> None:
    [monitor] = load(KUBERNETES / "podmonitor.yaml")
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["jobLabel"] in labels
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in server(manifests)["ports"]}


def test_a_key_created_as_the_secret_describes_signs_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shutil.copytree(KUBERNETES / "secrets", folder)
    text = (folder / "kustomization.yaml").read_text()
    made = re.search(r"python -c '(.*)' > token\.key", text)
    assert made
    key = subprocess.run([sys.executable, "-c", made[1]], capture_output=True, check=True).stdout
    (folder / "token.key").write_bytes(key)
    (folder / "statistics-url").write_text("postgresql://pawserve@db/statistics")
    [secret] = build(folder)
    kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)
    cpu = build(KUBERNETES / "cpu")
    volumes = one(cpu, "Deployment")["spec"]["template"]["spec"]["volumes"]
    [mounted] = [volume["secret"] for volume in volumes if "secret" in volume]
    assert mounted["secretName"] == secret["metadata"]["name"]
    assert {item["key"] for item in mounted["items"]} == secret["data"].keys()
    [folder_in_pod] = [each["mountPath"] for each in server(cpu)["volumeMounts"] if each["name"] == "secrets"]
    files = {f"{folder_in_pod}/{item['path']}" for item in mounted["items"]}
    [url_file] = [each["value"] for each in server(cpu)["env"] if each["name"] == "PAWSERVE_STATISTICS_FILE"]
    assert files == {str(settings_of(cpu).token_key), url_file}
    path = tmp_path / "token.key"
    path.write_bytes(key)
    path.chmod(mounted["defaultMode"])
    Keyring(path)  # takes it as it is mounted


def probes(manifests: list[Manifest]) -> list[Manifest]:
    return [server(manifests)[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]


def test_probes_use_the_server_s_port(manifests: list[Manifest]) -> None:
    assert {probe["port"] for probe in probes(manifests)} == {server(manifests)["ports"][0]["containerPort"]}


def test_the_probes_of_the_docs_for_tls_replace_those_of_grpc(manifests: list[Manifest]) -> None:
    docs = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    [text] = [block.split("```")[0] for block in docs.split("```yaml\n") if "httpGet" in block]
    deployment = copy.deepcopy(one(manifests, "Deployment"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container |= yaml.safe_load(text)
    kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)
    grpc_probes = {name for name in container if name.endswith("Probe") and "grpc" in container[name]}
    assert grpc_probes == set()
    asked = {probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert asked == {"/v2/health/live", "/v2/health/ready"}  # which need no token


def test_probes_succeed_for_a_server_and_fail_for_one_with_a_bad_bundle(tmp_path: Path) -> None:
    """With a bad bundle the new pod's process ends, so its probes never succeed."""
    write_bundle(tmp_path / "models")
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        grpc.insecure_channel(address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        for probe in probes(build(KUBERNETES / "cpu")):
            answer = health.Check(health_pb2.HealthCheckRequest(service=probe.get("service", "")), timeout=LIMIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    write_bundle(tmp_path / "models", version=2, content=b"not what its manifest says")
    finished = run("serving", "serve", "--models", tmp_path / "models", "--state", tmp_path / "state")
    assert finished.returncode == 1
    assert "model.fp32.onnx" in finished.stderr
