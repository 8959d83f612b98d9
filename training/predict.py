"""Classification of encoded images by the trained network of a run, in this process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serving.image.averaging import temperature_of
from serving.image.decode import ImageError, Limits
from serving.system.cpus import available_cpus
from training.evaluation.temperature import mean_logits, softmax
from training.hardware import choose_hardware
from training.networks.model import class_count
from training.runs.run import open_run

Classify = Callable[[Sequence[bytes]], list[tuple[Sequence[float], int] | Exception]]
"""Encoded images -> of each the probabilities of the classes and the number of views, or why it cannot be decoded."""


def open_classifier(folder: Path, views: int, limits: Limits) -> tuple[Classify, tuple[str, ...]]:
    """Load the network of a run.

    Args:
        views: views of each image to average over, those that serving makes.
        limits: larger images are rejected.

    Returns:
        The function that classifies, and the run's classes in index order.

    Raises:
        RunError: if the folder is no finished run, or is damaged.
    """
    run = open_run(folder)
    device = choose_hardware().device
    network = run.load_classifier().to(device)
    preprocess = run.preprocess

    def views_of(image: bytes) -> NDArray[np.uint8] | ImageError | MemoryError:
        try:
            return preprocess.views(image, views, limits=limits)
        except (ImageError, MemoryError) as error:
            return error

    def classify(images: Sequence[bytes]) -> list[tuple[Sequence[float], int] | Exception]:
        with ThreadPoolExecutor(available_cpus()) as pool:
            prepared = list(pool.map(views_of, images))
        readable = [each for each in prepared if not isinstance(each, Exception)]
        probabilities = iter(())
        if readable:
            with torch.inference_mode():
                logits = network(torch.from_numpy(np.concatenate(readable)).to(device)).float().cpu().numpy()
            logits_NVK = logits.reshape(len(readable), views, class_count(network))
            means_NK = mean_logits(logits_NVK.transpose(1, 0, 2))
            probabilities = iter(softmax(means_NK, temperature_of(views, run.temperatures)).tolist())
        return [each if isinstance(each, Exception) else (next(probabilities), views) for each in prepared]

    return classify, run.classes
