"""The serving commands as a user runs them: their output and exit codes."""

import json
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving.client import Client
from tests.support.bundles import COLOURS, write_bundle
from tests.support.commands import WarmProcess, main_of, run
from tests.support.images import encoded
from tests.support.servers import ObservedServer, observed_server, running_server
from tests.support.waiting import LIMIT_S, eventually


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """red.jpg, deeper/green.png, text.jpg, and a file whose suffix is not that of an image."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    (folder / "red.jpg").write_bytes(encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))
    (folder / "deeper" / "green.png").write_bytes(encoded(Image.new("RGB", (80, 60), "#00ff00"), "PNG"))
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("not to be sent")
    return folder


def serving_command(*arguments: object, server: str) -> subprocess.CompletedProcess[str]:
    return run("serving", *arguments, PAWSERVE_SERVER=server)


def document(finished: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(finished.stdout)


def test_predict_shows_each_image_and_fails_if_one_did(address: str, images: Path) -> None:
    finished = serving_command("predict", images, images / "missing.jpg", server=address)
    assert finished.returncode == 1
    lines = finished.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        str(images / name) for name in ("deeper/green.png", "red.jpg", "text.jpg", "missing.jpg")
    ]
    assert "100.0% green" in lines[0]
    assert "100.0% red" in lines[1]
    assert "supported are JPEG" in lines[2]
    assert "No such file" in lines[3]
    assert finished.stderr.splitlines() == [
        "left out: 1 file or folder",
        f"  {images}/notes.txt: not an image, by its suffix and its first bytes",
    ]


def test_predict_finds_what_training_finds_and_lists_what_it_leaves_out(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = encoded(Image.new("RGB", (80, 60), "red"), "JPEG")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("images/a.jfif", "images/b", "images/c.jpg", "elsewhere/d.jpg", "images/@eaDir/c.jpg/thumb.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(red)
    (tmp_path / "images/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/loop").symlink_to(tmp_path)
    finished = serving_command("predict", "~/images", "--json", server=address)
    assert finished.returncode == 0, finished.stderr
    files = [Path(result["file"]).relative_to(tmp_path) for result in document(finished)["results"]]
    assert [str(file) for file in files] == ["images/a.jfif", "images/b", "images/c.jpg", "images/linked/d.jpg"]
    (skipped,) = document(finished)["skipped"]
    assert skipped == {"path": str(tmp_path / "images/loop"), "reason": "a link to a folder that contains it"}
    assert "left out: 1 file or folder" in finished.stderr
    (tmp_path / "images/e.JXL").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(16))
    failed = serving_command("predict", tmp_path / "images", server=address)
    assert failed.returncode == 1
    assert "JPEG XL is not supported" in failed.stdout


def test_predict_of_one_image_prints_the_command_that_labels_it(address: str, images: Path) -> None:
    finished = serving_command("predict", images / "red.jpg", server=address)
    assert finished.returncode == 0
    token = finished.stdout.split("pawserve label ")[1].split()[0]
    labelled = serving_command("label", token, "green", server=address)
    assert labelled.returncode == 0
    assert "predicted red, the label is green (incorrect)" in labelled.stdout
    corrected = serving_command("label", token, "red", "--json", server=address)
    assert document(corrected) == {
        "model": "models/colours/versions/1",
        "predicted": "red",
        "label": "red",
        "previous_label": "green",
    }


def test_predict_as_json_is_one_document(address: str, images: Path) -> None:
    finished = serving_command("predict", images, "--json", "--views", 3, "--top-k", 2, server=address)
    assert finished.returncode == 1
    answer = document(finished)
    assert answer["model"] == "models/colours/versions/1"
    green, red, text = answer["results"]
    assert (green["file"], green["views"]) == (str(images / "deeper" / "green.png"), 3)
    assert [entry["label"] for entry in red["classes"]][0] == "red"
    assert len(red["classes"]) == 2
    assert red["token"]
    assert text["error"]["reason"] == "NOT_AN_IMAGE"


def test_predict_keeps_the_order_of_more_files_than_fit_a_request(address: str, tmp_path: Path) -> None:
    expected = [COLOURS[number % 3] for number in range(50)]
    for number, colour in enumerate(expected):
        content = encoded(Image.new("RGB", (64, 64), "#00ff00" if colour == "green" else colour), "PNG")
        (tmp_path / f"{number:02}.png").write_bytes(content)
    answer = document(serving_command("predict", tmp_path, "--json", "--model", "colours/1", server=address))
    assert [result["classes"][0]["label"] for result in answer["results"]] == expected


def test_predict_with_a_label_records_it(address: str, images: Path) -> None:
    def labels() -> int:
        return sum(model["labels"] for model in document(serving_command("stats", "--json", server=address))["models"])

    before = labels()
    red = images / "red.jpg"
    finished = serving_command("predict", red, images / "deeper/green.png", "--label", "red", server=address)
    assert finished.returncode == 0
    assert finished.stdout.endswith("recorded red as the label of 2 images: 1 correct\n")
    assert labels() == before + 2


def test_a_label_that_is_no_class_is_reported_once(address: str, images: Path) -> None:
    finished = serving_command("predict", images, "--label", "rde", server=address)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.count("'rde' is not a class") == 1


def test_stats_of_a_time_without_predictions_say_so(address: str) -> None:
    finished = serving_command("stats", "--since", "2020-01-01", "--until", "2020-01-02", server=address)
    assert (finished.returncode, finished.stdout) == (0, "no predictions in the time window\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["predict", "a.jpg", "--labels", "cats"],
            "predict: error: unrecognized arguments: --labels cats; did you mean --label?",
        ),
        (["stats", "--zzz"], "stats: error: unrecognized arguments: --zzz\n"),
    ],
)
def test_an_unknown_option_is_reported_under_the_command_with_the_one_that_was_meant(
    arguments: list[str], said: str
) -> None:
    finished = run("serving", *arguments)
    assert finished.returncode == 2
    assert said in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "birds"], "models/birds is not served here; there is models/colours/versions/1"),
        (["--views", "99"], "views is 99; 1 to 16 are allowed"),
        (["--label", "cat"], "'cat' is not a class of models/colours/versions/1; its classes are blue, green, red"),
    ],
)
def test_predict_prints_why_the_server_rejects(address: str, images: Path, arguments: list[str], message: str) -> None:
    finished = serving_command("predict", images / "red.jpg", *arguments, server=address)
    assert finished.returncode == 1
    assert message in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr


def test_stats_prints_tables_json_and_a_plot(address: str, images: Path, tmp_path: Path) -> None:
    serving_command("predict", images / "red.jpg", "--label", "blue", server=address)
    plot = tmp_path / "matrix.png"
    finished = serving_command("stats", "--model", "colours", "--plot", plot, server=address)
    assert finished.returncode == 0
    for text in ("models/colours/versions/1", "accuracy", "95% interval", "precision", *COLOURS):
        assert text in finished.stdout
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    (model,) = document(serving_command("stats", "--json", server=address))["models"]
    assert model["classes"] == list(COLOURS)
    assert sum(map(sum, model["confusion_matrix"])) == model["labels"]
    assert model["confusion_matrix"][COLOURS.index("blue")][COLOURS.index("red")] >= 1
    accuracy = model["accuracy"]
    assert 0 <= accuracy["lower"] <= accuracy["value"] <= accuracy["upper"] <= 1


def test_a_plot_that_cannot_be_written_is_reported(address: str, images: Path, tmp_path: Path) -> None:
    serving_command("predict", images / "red.jpg", "--label", "red", server=address)
    finished = serving_command("stats", "--plot", tmp_path / "nowhere" / "matrix.png", server=address)
    assert finished.returncode == 1
    assert "cannot be written" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_health_prints_what_is_served(address: str) -> None:
    finished = serving_command("health", server=address)
    assert finished.returncode == 0
    assert finished.stdout.splitlines()[0] == "SERVING"
    assert "models/colours/versions/1 (fp32, onnxruntime cpu" in finished.stdout
    assert document(serving_command("health", "--json", server=address)) == {
        "status": "SERVING",
        "models": [{"name": "models/colours/versions/1", "state": "READY", "reason": "", "primary": True}],
    }


def test_health_and_models_show_states_and_why_a_version_failed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    layout = ("--instances", 1, "--threads", 1, "--max-batch-size", 2)
    options = ("--poll-seconds", 0.1, "--engine", "cpu", *layout)
    failed, served = "models/colours/versions/2", "models/colours/versions/1"
    with (
        running_server(tmp_path / "models", tmp_path / "state", *options) as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        write_bundle(tmp_path / "models", version=2, content=b"damaged")
        assert eventually(lambda: len(client.list_models()) == 2 and client.list_models()[1].state_reason)
        reason = client.list_models()[1].state_reason
        assert "model.fp32.onnx" in reason
        assert document(serving_command("health", "--json", server=address))["models"] == [
            {"name": served, "state": "READY", "reason": "", "primary": True},
            {"name": failed, "state": "FAILED", "reason": reason, "primary": False},
        ]
        assert f"  {failed} FAILED: {reason}" in serving_command("health", server=address).stdout.splitlines()
        lines = serving_command("models", server=address).stdout.splitlines()
        assert lines[0] == f"{served}  READY  PRIMARY"
        assert lines[1].startswith("  engine    fp32, onnxruntime-cpu: ")
        assert lines[2].startswith("  layout    1 x 1 threads, batches of at most 2")
        assert "  views     1 by default, at most 16" in lines
        assert lines[-2:] == [f"{failed}  FAILED", f"  reason    {reason}"]
        ready, broken = document(serving_command("models", "--json", server=address))["models"]
        assert (broken["name"], broken["state"], broken["reason"]) == (failed, "FAILED", reason)
        assert (ready["state"], ready["precision"], ready["runtime"]) == ("READY", "fp32", "onnxruntime-cpu")
        assert ready["views"] == {"default": 1, "recommended": 1, "adaptive": 5, "most": 16}
        assert (ready["layout"]["instances"], ready["layout"]["max_batch_size"]) == (1, 2)


@pytest.mark.parametrize("command", [["predict", __file__], ["label", "token", "red"], ["stats"], ["health"]])
def test_an_unreachable_server_is_one_line_and_exit_code_1(command: list[str]) -> None:
    finished = serving_command(*command, "--timeout", 5, server="127.0.0.1:1")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("pawserve: no pawserve answers at 127.0.0.1:1")
    assert not finished.stdout


def test_a_model_that_is_no_folder_is_said_to_be_a_name_at_the_server() -> None:
    finished = serving_command("predict", __file__, "--model", "nowhere", "--timeout", 5, server="127.0.0.1:1")
    assert finished.returncode == 1
    assert finished.stderr.startswith("pawserve: no pawserve answers at 127.0.0.1:1")
    assert (
        "models/nowhere is the name of a model there; a folder with a bundle or a run was not found" in finished.stderr
    )


@pytest.mark.parametrize("package", ["training", "export", "serving"])
def test_every_package_prints_its_version(package: str) -> None:
    finished = run(package, "--version")
    assert (finished.returncode, finished.stdout) == (0, f"pawserve {version('pawserve')}\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["bark"], ["predict"], ["predict", "x.jpg", "--views", "0"], ["serve", "--instances", "many"]],
)
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    finished = run("serving", *arguments)
    assert finished.returncode == 2
    assert "usage:" in finished.stderr


def test_a_folder_without_images_is_reported(tmp_path: Path) -> None:
    finished = run("serving", "predict", tmp_path)
    assert finished.returncode == 1
    assert "no images" in finished.stderr


@pytest.mark.parametrize("command", ["", "serve", "predict", "label", "stats", "health"])
def test_every_command_has_help(command: str) -> None:
    finished = run("serving", *command.split(), "--help")
    assert finished.returncode == 0
    assert len(finished.stdout) > 400


def test_ctrl_c_ends_predict_with_130(tmp_path: Path, images: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with observed_server(tmp_path, "--instances", 1, "--grace", 0) as server:
        predict = predict_slowly(server, images)
        predict.send_signal(signal.SIGINT)
        finished = predict.finish()
    assert finished.returncode == 130
    assert "Traceback" not in finished.stderr


def test_a_second_signal_stops_a_server_at_once(tmp_path: Path, images: Path) -> None:
    write_bundle(tmp_path / "models", slowness=40)
    with observed_server(tmp_path, "--instances", 1, "--grace", 100) as server:
        predict = predict_slowly(server, images)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait_until(lambda: "a second signal" in server.process.stderr)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
        assert predict.finish().returncode == 1  # not all images were classified first


def predict_slowly(server: ObservedServer, images: Path) -> WarmProcess:
    """Begin to classify images that take the server minutes; return when the engine has some of them."""
    arguments = ["predict", *[images / "red.jpg"] * 16, "--views", 16, "--server", server.address]
    predict = WarmProcess(main_of, "serving", *arguments)
    predict.wait_until(lambda: server.metric("pawserve_rows_in_flight", model="colours", version="1"))
    return predict


def test_a_command_with_a_mistyped_variable_is_wrong_use() -> None:
    finished = run("serving", "health", PAWSERVE_SERVER="127.0.0.1:1", PAWSERVE_STATISTIC_FILE="/run/secrets/url")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "did you mean PAWSERVE_STATISTICS_FILE" in finished.stderr
