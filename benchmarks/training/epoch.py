"""An epoch of the whole network on images, beside the bare loop on random tensors: images a second."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional

from benchmarks.training.engines import ARCH, pretrained_body
from serving.system.memory import all_freed_memory_kept
from training.data.image_files import read_images
from training.data.sources import ImageSource, random_batches
from training.distributed import ProcessGroup
from training.fitting.trainer import Trainer
from training.hardware import choose_hardware
from training.networks.layer_groups import layer_groups
from training.networks.model import Classifier, Head, count_features, describe_backbone, head_width

ROUNDS = 2
BATCH_SIZE = 32
BATCHES = 6
LEARNING_RATE = 1e-4


def measure_epochs(
    data: Path, size: int, *, arch: str = ARCH, weights: str = "pretrained", batches: int = BATCHES
) -> dict[str, Any]:
    """Speed of training steps of the unfrozen network.

    A cold epoch decodes and augments its images. A warm one is a later epoch of the same images, which a source keeps
    decoded while they fit into its memory. The bare loop is torch's own, on one random batch, without loading, in the
    C library's default setting of memory.
    """
    hardware = choose_hardware()
    body = pretrained_body(arch, weights)
    features = count_features(body, size)
    classifier = Classifier(body, Head(features, 2, width=head_width(body, features, 2)))
    trainer = Trainer(
        classifier,
        layer_groups(classifier, 3, 0),
        momentum=0.9,
        weight_decay=0.0,
        freeze_bn=False,
        hardware=hardware,
        processes=ProcessGroup(),
    )
    split = read_images(data).split(valid_fraction=0.2, seed=0)
    images = split.train[:: max(len(split.train) // (batches * BATCH_SIZE), 1)][: batches * BATCH_SIZE]
    preprocess = describe_backbone(arch).preprocess_at(size)
    random_batch = torch.randint(256, (BATCH_SIZE, size, size, 3), dtype=torch.uint8)
    labels = torch.randint(2, (BATCH_SIZE,))

    def bare(count: int) -> int:
        classifier.train()
        for group in trainer.optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        for _ in range(count):
            with torch.autocast(hardware.device.type, hardware.autocast, enabled=hardware.autocast is not None):
                logits = classifier(random_batch.to(hardware.device))
                loss = functional.cross_entropy(logits, labels.to(hardware.device))
            trainer.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            trainer.optimizer.step()
        return count * BATCH_SIZE

    def epoch(source: ImageSource) -> int:
        trainer.train()
        order = random_batches(len(images), BATCH_SIZE, 0)
        with all_freed_memory_kept():  # as in a fit
            for batch, (inputs, targets) in zip(order, source.batches(order, 0), strict=True):
                trainer.step(inputs, targets, rows=len(batch), rates=[LEARNING_RATE] * 3)
        return len(images)

    bare(2)
    rates: dict[str, list[float]] = {"bare": [], "cold": [], "warm": []}
    for _ in range(ROUNDS):  # in turns, so that a busy minute does not affect one of them alone
        source = ImageSource(images, preprocess, "side-on", hardware.workers)  # a new one has nothing decoded
        rates["bare"].append(_images_per_s(partial(bare, batches)))
        rates["cold"].append(_images_per_s(partial(epoch, source)))
        rates["warm"].append(_images_per_s(partial(epoch, source)))
    bare_rate, cold, warm = (fmean(each) for each in rates.values())
    return {
        "bare loop, random tensors": round(bare_rate, 2),
        "an epoch, cold: images decoded and augmented": round(cold, 2),
        "an epoch, warm: decoded images augmented": round(warm, 2),
        "cold ratio": round(cold / bare_rate, 3),
        "warm ratio": round(warm / bare_rate, 3),
        "pixels": size,
        "batch size": BATCH_SIZE,
        "images an epoch": len(images),
        "rounds": ROUNDS,
    }


def _images_per_s(work: Callable[[], int]) -> float:
    began = time.monotonic()
    images = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the work is only queued until then
    return images / (time.monotonic() - began)
