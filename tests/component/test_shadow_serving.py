"""A server with a shadow version, as its users see it: start, lists of models, metrics, the page's data, stop."""

import base64
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from serving.client import Client, Prediction
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.servers import http_server, observed_server
from tests.support.shadows import failing_graph, with_graph
from tests.support.statistics import RED
from tests.support.waiting import eventually

SHADOW = {"model": "colours", "version": "2"}


def children(pid: int) -> list[int]:
    """Processes that a process has started and that have not ended."""
    return [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]


def test_lists_of_models_say_which_version_is_a_shadow(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    with http_server(tmp_path, "--shadow", "colours/2=0.25") as server:
        assert "models/colours/versions/2 (fp32" in server.process.stdout
        assert "shadow of 25% of the requests" in server.process.stdout
        printed = run("serving", "models", "--server", server.address).stdout.splitlines()
        assert "models/colours/versions/2  READY  SHADOW of 0.25 of the requests" in printed
        listed = json.loads(run("serving", "models", "--server", server.address, "--json").stdout)["models"]
        assert [(each["name"], each["shadow_share"]) for each in listed] == [
            ("models/colours/versions/1", None),
            ("models/colours/versions/2", 0.25),
        ]
        with urllib.request.urlopen(f"{server.url}/v1/models") as answer:
            models = json.load(answer)["models"]
        assert [model.get("shadowShare") for model in models] == [None, 0.25]
        with Client(server.address) as client:
            assert client.classify([RED]).model == "models/colours/versions/1"
            assert client.classify([RED], model="models/colours/versions/2").model == "models/colours/versions/2"


def test_metrics_count_images_labels_and_what_waits(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    with observed_server(tmp_path, "--shadow", "colours/2") as server, Client(server.address) as client:
        results = client.classify([RED, RED, RED]).results
        assert eventually(lambda: server.metric("pawserve_shadow_images_total", **SHADOW, result="ok") == 3)
        client.record_labels([(each.token, "red") for each in results if isinstance(each, Prediction)])
        assert server.metric("pawserve_shadow_labels_total", **SHADOW, result="joined") == 3
        assert server.metric("pawserve_shadow_waiting_images") == 0
        assert server.metric("pawserve_shadow_waiting_bytes") == 0
        assert server.metric("pawserve_images_total", model="colours", version="1", result="ok") == 3
        assert server.metric("pawserve_images_total", **SHADOW, result="ok") == 0
        assert [each.predictions for each in client.statistics()] == [3, 3]


def test_images_of_streams_and_of_the_open_inference_protocol_are_chosen_too(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    with http_server(tmp_path, "--shadow", "colours/2") as server, Client(server.address) as client:
        assert len([*client.classify_many([RED] * 5)]) == 5
        image = base64.b64encode(RED).decode()
        parameters = {"content_type": "base64"}
        inputs = [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": parameters, "data": [image]}]
        body = json.dumps({"inputs": inputs}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.url}/v2/models/colours/infer", body, headers)
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["model_version"] == "1"
        assert eventually(lambda: [each.predictions for each in client.statistics()] == [6, 6])


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
def test_a_shadow_version_that_crashes_takes_no_answer_with_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    with observed_server(tmp_path, "--shadow", "colours/2") as server, Client(server.address) as client:
        (child,) = children(server.process.pid)
        os.kill(child, signal.SIGSEGV)
        assert len(client.classify([RED, RED]).results) == 2
        assert eventually(lambda: server.metric("pawserve_shadow_images_total", **SHADOW, result="failed") == 2)
        assert children(server.process.pid) == []
        assert len(client.classify([RED]).results) == 1


@pytest.mark.parametrize("damage", ["no graph", "nan", "missing"])
def test_a_server_whose_shadow_version_is_damaged_serves(tmp_path: Path, damage: str) -> None:
    write_bundle(tmp_path / "models")
    if damage == "no graph":
        write_bundle(tmp_path / "models", version=2, content=b"no graph")
    elif damage == "nan":
        write_bundle(tmp_path / "models", version=2, **with_graph(failing_graph(64, how="nan")))
    with observed_server(tmp_path, "--shadow", "colours/2") as server, Client(server.address) as client:
        (result,) = client.classify([RED]).results
        assert isinstance(result, Prediction)
        assert result.classes[0][0] == "red"
        first, second = client.list_models()
        assert (first.name, first.HasField("shadow_share")) == ("models/colours/versions/1", False)
        assert (second.name, second.shadow_share) == ("models/colours/versions/2", 1.0)
        if damage == "nan":
            assert eventually(lambda: server.metric("pawserve_shadow_images_total", **SHADOW, result="failed") == 1)
        else:
            reason = {"no graph": "8 bytes", "missing": "holds no version 2, only 1"}[damage]
            assert reason in second.state_reason
        client.record_labels([(result.token, "red")])
        (statistics,) = client.statistics()
        assert (statistics.model, statistics.labels) == ("models/colours/versions/1", 1)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--shadow", "colours/1"], 1, "holds no version of colours but colours/1, a shadow version"),
        (["--shadow", "pets/2"], 1, "holds no version of pets, only of colours; give one of these names"),
        (["--model", "colours/1", "--shadow", "colours/1"], 2, "a version is no shadow of itself"),
        (["--shadow", "colours"], 2, "write NAME/VERSION or NAME/VERSION=SHARE"),
    ],
)
def test_a_shadow_version_that_cannot_be_one_ends_the_start(
    tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    write_bundle(tmp_path / "models")
    addresses = ("--listen", "127.0.0.1:0", "--http", "off")
    folders = ("--models", tmp_path / "models", "--state", tmp_path / "state")
    finished = run("serving", "serve", *folders, *addresses, *options)
    assert finished.returncode == code
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
