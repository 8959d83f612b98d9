"""Training, export and serving on real images: the server gives the predictions of the run, image by image."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.metrics import accuracy_score, confusion_matrix

from serving.client import Client, Prediction
from tests.support.commands import run
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually
from training.data.images import LabelledImage
from training.runs.run import open_run

pytestmark = [pytest.mark.photos, pytest.mark.slow]


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the real images, with a bundle beside it."""
    folder = tmp_path_factory.mktemp("real")
    arguments = ("--data", photos, "--run", folder / "run", "--cache", folder / "cache")
    finished = run("training", "fit", *arguments, "--arch", "tf_efficientnet_lite0")
    assert finished.returncode == 0, finished.stderr
    finished = run("export", "bundle", "--run", folder / "run", "--models", folder / "models", "--name", "pets")
    assert finished.returncode == 0, finished.stderr
    return folder


def test_accuracy_is_at_least_99_percent(fitted: Path) -> None:
    metrics = open_run(fitted / "run").facts["metrics"]
    assert metrics["n"] == 1000
    assert metrics["accuracy"]["value"] >= 0.99


def test_the_server_has_the_accuracy_of_the_run_and_the_confusion_matrix_of_scikit_learn(fitted: Path) -> None:
    trained = open_run(fitted / "run")
    files, trained_NK = trained.validation()
    with running_server(fitted / "models", fitted / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        answers: list[str] = []
        tokens: list[str] = []
        for start in range(0, len(files), 16):
            for result in client.classify([image.read() for image in files[start : start + 16]]).results:
                assert isinstance(result, Prediction)
                answers.append(result.classes[0][0])
                tokens.append(result.token)
        labels = [trained.classes[image.label] for image in files]
        client.record_labels(list(zip(tokens, labels, strict=True)))
        (statistics,) = client.statistics()
    assert answers == [trained.classes[k] for k in trained_NK.argmax(1)]
    assert accuracy_score(labels, answers) == trained.facts["metrics"]["accuracy"]["value"]
    served = [list(row.predicted) for row in statistics.confusion_matrix]
    assert served == confusion_matrix(labels, answers, labels=list(trained.classes)).tolist()
    assert served == trained.facts["confusion_matrix"]
    assert statistics.labels == statistics.predictions == len(files)


def blurred(image: LabelledImage) -> bytes:
    with Image.open(image.path) as opened:
        return encoded(opened.convert("RGB").filter(ImageFilter.GaussianBlur(0.04 * min(opened.size))), "JPEG")


def test_drift_is_noticed_within_200_images_and_never_on_the_validation_images(fitted: Path) -> None:
    """The validation images in random order; then, of a version that was just loaded each, other images only."""
    trained = open_run(fitted / "run")
    files, _ = trained.validation()
    Random(0).shuffle(files)
    dogs = [image.read() for image in files if trained.classes[image.label] == "dogs"]

    def first_alarm(contents: list[bytes]) -> tuple[int | None, set[str]]:
        """After how many images there is an alarm, with a look after every 10; and what differs then."""
        state = fitted / "drift-state"
        with running_server(fitted / "models", state) as address, Client(address, timeout_s=LIMIT_S) as client:
            for end in range(10, len(contents) + 1, 10):
                client.classify(contents[end - 10 : end])
                if end == 10:
                    assert eventually(lambda: client.statistics())
                (statistics,) = client.statistics()
                if statistics.drift.alarm:
                    return end, {each.name for each in statistics.drift.distributions if each.alarm}
        return None, set()

    assert first_alarm([image.read() for image in files]) == (None, set())
    number, differing = first_alarm(dogs[:200])
    assert number is not None
    assert "classes" in differing
    number, differing = first_alarm([blurred(image) for image in files[:200]])
    assert number is not None
    assert "confidence" in differing


def test_a_second_fit_reuses_all_activations_and_gives_the_same_result(fitted: Path, photos: Path) -> None:
    arguments = ("--data", photos, "--run", fitted / "again", "--cache", fitted / "cache")
    finished = run("training", "fit", *arguments, "--arch", "tf_efficientnet_lite0", "--json")
    assert finished.returncode == 0, finished.stderr
    facts = json.loads(finished.stdout)
    first = open_run(fitted / "run").facts
    assert facts["activations"] == {"computed": 0, "reused": 3000}
    assert facts["confusion_matrix"] == first["confusion_matrix"]
    assert np.isclose(facts["metrics"]["nll"]["value"], first["metrics"]["nll"]["value"])
