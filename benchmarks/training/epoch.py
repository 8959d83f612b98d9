"""An epoch of the whole network on photos, beside the bare loop on random tensors: photos a second."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.training.engines import ARCH, pretrained_body
from training.data.images import read_split
from training.data.sources import ImageSource, random_batches
from training.distributed import ProcessGroup
from training.fitting.trainer import Trainer
from training.hardware import choose_hardware
from training.networks.layer_groups import layer_groups
from training.networks.model import Classifier, Head, count_features, describe_backbone, head_width

ROUNDS = 2
RATE = 1e-4


def whole_network(data: Path, size: int, batch_size: int = 32, batches: int = 6) -> dict[str, Any]:
    """Rates of training steps of the unfrozen network.

    A cold epoch decodes and augments its photos; a warm one is a later epoch of the same photos, which a source keeps
    decoded while they fit into its memory. The bare loop is torch's own, on one random batch, with no loading.
    """
    hardware = choose_hardware()
    body = pretrained_body()
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
        processes=ProcessGroup(),
    )
    split, _ = read_split(data, valid_fraction=0.2, seed=0)
    photos = split.train[:: max(len(split.train) // (batches * batch_size), 1)][: batches * batch_size]
    preprocess = describe_backbone(ARCH).preprocess_at(size)
    images = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8)
    labels = torch.randint(2, (batch_size,))
    optimizer = trainer.optimizer

    def bare(count: int = batches) -> int:
        classifier.train()
        for group in optimizer.param_groups:
            group["lr"] = RATE
        for _ in range(count):
            loss = functional.cross_entropy(classifier(images.to(hardware.device)), labels.to(hardware.device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        return count * batch_size

    def epoch(source: ImageSource) -> int:
        trainer.train()
        order = random_batches(len(photos), batch_size, 0)
        for batch, (inputs, targets) in zip(order, source.batches(order, 0), strict=True):
            trainer.step(inputs, targets, rows=len(batch), rates=[RATE] * 3)
        return len(photos)

    bare(2)
    seconds: dict[str, list[float]] = {"bare": [], "cold": [], "warm": []}
    for _ in range(ROUNDS):  # in turn, so that a busy minute does not fall on one of them alone
        source = ImageSource(photos, preprocess, "side-on", hardware.workers)  # a new one has nothing decoded
        seconds["bare"].append(_timed(bare))
        seconds["cold"].append(_timed(partial(epoch, source)))
        seconds["warm"].append(_timed(partial(epoch, source)))
    rates = {name: ROUNDS * batches * batch_size / sum(each) for name, each in seconds.items()}
    return {
        "bare loop, random tensors": round(rates["bare"], 2),
        "an epoch, cold: photos decoded and augmented": round(rates["cold"], 2),
        "an epoch, warm: decoded photos augmented": round(rates["warm"], 2),
        "cold ratio": round(rates["cold"] / rates["bare"], 3),
        "warm ratio": round(rates["warm"] / rates["bare"], 3),
        "pixels": size,
        "batch size": batch_size,
        "photos an epoch": len(photos),
        "rounds": ROUNDS,
    }


def _timed(work: Callable[[], int]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
