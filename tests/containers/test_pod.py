"""The pod of deploy/kubernetes, run by podman with the user, volumes, secrets and probes that a node would provide."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import Client
from tests.support.containers.build import Images
from tests.support.http import ask
from tests.support.images import RED
from tests.support.kustomize import KUBERNETES, build, one
from tests.support.postgresql import Postgresql
from tests.support.waiting import eventually


def mounts(pod: dict[str, Any], container: dict[str, Any], models: Path, secrets: Path, work: Path) -> list[str]:
    """The volumes of `podman run`, with the owner and mode that the kubelet gives them."""
    group = pod["securityContext"]["fsGroup"]
    options = []
    for mount in container["volumeMounts"]:
        [volume] = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        folder = work / mount["name"]
        if "persistentVolumeClaim" in volume:
            folder = models
        else:
            folder.mkdir()
            os.chown(folder, 0, group)
            folder.chmod(0o2777)
        if secret := volume.get("secret"):
            for item in secret["items"]:
                path = folder / item["path"]
                path.write_bytes((secrets / item["key"]).read_bytes())
                os.chown(path, 0, group)
                path.chmod(secret["defaultMode"])
        options += ["--volume", f"{folder}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"]
    return options


def probe(address: str, asked: dict[str, Any]) -> str:
    """The status that a node's gRPC probe receives."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=asked["grpc"].get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=asked.get("timeoutSeconds", 1))
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined]
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def test_a_pod_of_the_cpu_overlay_serves(images: Images, work: Path, models: Path, postgresql: Postgresql) -> None:
    pod = one(build(KUBERNETES / "cpu"), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    secrets = work / "pod-secrets"
    secrets.mkdir()
    (secrets / "token.key").write_text("ab" * 32 + "\n")
    (secrets / "statistics-url").write_text(postgresql.create())
    volumes = work / "pod"
    volumes.mkdir()
    options = mounts(pod, container, models, secrets, volumes)
    for variable in container["env"]:
        options += ["--env", f"{variable['name']}={variable['value']}"]
    security = pod["securityContext"]
    options += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}", "--name", "pawserve-pod"]
    assert container["securityContext"]["readOnlyRootFilesystem"]  # as all containers of these tests
    arguments, addresses = container["args"], []
    for port in (50051, 8080, 9464):  # podman shares this host's network
        with socket.create_server(("127.0.0.1", 0)) as free:
            other = free.getsockname()[1]
        arguments = [argument.replace(f"0.0.0.0:{port}", f"127.0.0.1:{other}") for argument in arguments]
        addresses.append(f"127.0.0.1:{other}")
    address, http, _ = addresses
    command = images.storage.run_command(*options, images.cpu, *arguments)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert eventually(lambda asked=container[name]: probe(address, asked) == "SERVING"), name  # type: ignore[misc]
            assert ask(f"http://{http}", "/v2/health/ready").json() == {"ready": True}
            with Client(address) as client:
                (result,) = client.classify([RED]).results
                client.record_labels([(result.token, "red")])
                (statistics,) = client.statistics()
                assert statistics.labels == 1
            images.storage.podman("kill", "--signal", signal.SIGTERM.name, "pawserve-pod")
            assert process.wait(pod["terminationGracePeriodSeconds"]) == 0
        finally:
            process.kill()
