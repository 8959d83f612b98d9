"""Measures networks on images that they were not trained on, and on shifted copies of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from serving.system.memory import all_freed_memory_kept
from training.data.images import LabelledImage, labels_of
from training.data.shard_source import image_source
from training.data.sources import Source
from training.evaluation.trials import HeldOut
from training.fitting.session import FitSession
from training.fitting.trainer import predict
from training.networks.model import Classifier, Network
from training.networks.weights import fingerprint


class HeldOutImages:
    """Images that networks were not trained on and a shifted copy of each, at one size at a time.

    The features of the latest body are kept: networks that differ in the head alone cost nothing more.
    """

    def __init__(self, session: FitSession, images: Sequence[LabelledImage]) -> None:
        self._session = session
        self._images = images
        self._size: int | None = None
        self._sources: Sequence[Source] = ()
        self._features: tuple[str, list[Tensor]] | None = None

    def measure(self, network: Network, size: int | None) -> HeldOut:
        """Logits in one view.

        Args:
            network: moved to the session's device, and put into eval mode.
            size: side of its input in pixels; None is the backbone's own.
        """
        device = self._session.hardware.device
        network.to(device).to(memory_format=torch.channels_last).eval()
        if not self._sources or size != self._size:
            self._open(size)
        if isinstance(network, Classifier):
            sha256 = fingerprint(network.body.state_dict())
            if self._features is None or self._features[0] != sha256:
                self._features = sha256, self._predict(network.body)
            with torch.inference_mode():
                logits = [network.head(features.to(device)).float().cpu() for features in self._features[1]]
        else:
            logits = self._predict(network)
        clean_NK, shifted_NK = (each.numpy() for each in logits)
        return HeldOut(clean_NK, shifted_NK, labels_of(self._images))

    def _open(self, size: int | None) -> None:
        session = self._session
        preprocess = session.backbone.preprocess_at(size)
        clean = image_source(self._images, preprocess, "none", session.hardware)
        shifted = cast(Source, replace(cast(Any, clean), augment="shifted"))  # which shares the decoded images
        self._size, self._sources, self._features = size, (clean, shifted), None

    def _predict(self, module: torch.nn.Module) -> list[Tensor]:
        session = self._session
        with all_freed_memory_kept():
            return [predict(module, source, session.hardware, session.processes) for source in self._sources]
