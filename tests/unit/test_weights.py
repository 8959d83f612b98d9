"""Weights from the files that training programs write, and from an earlier run."""

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from training.networks.model import Body, Classifier, Head, MeanPredictions, build_body, describe_backbone
from training.networks.weights import WeightsError, load_weights

ARCH = "test_resnet"


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return build_body(ARCH).state_dict()


def named(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in trained().items()} | {f"{prefix}fc.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        pytest.param(named(""), id="plain"),
        pytest.param(named("module."), id="DistributedDataParallel"),
        pytest.param(named("_orig_mod."), id="torch.compile"),
        pytest.param({"state_dict": named("model._orig_mod."), "epoch": 3, "hyper_parameters": {}}, id="Lightning"),
        pytest.param({"model": named("module."), "optimizer": {"state": {}}, "epoch": 3}, id="torchvision"),
        pytest.param({"state_dict": named(""), "args": argparse.Namespace(lr=0.1), "version": 2}, id="timm"),
    ],
)
def test_checkpoints_of_training_programs_are_loaded(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "weights.pth")
    body = build_body(ARCH)
    load_weights(body, ARCH, str(tmp_path / "weights.pth"))
    for name, tensor in trained().items():
        assert torch.equal(body.state_dict()[name], tensor), name


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_body_of_a_run_is_loaded_whatever_its_classes(ensemble: bool, tmp_path: Path) -> None:
    classifier = Classifier(Body(describe_backbone(ARCH)), Head(192, 7, width=16))
    network = MeanPredictions([classifier, classifier]) if ensemble else classifier
    safetensors.torch.save_model(network, tmp_path / "model.safetensors")
    body = build_body(ARCH)
    load_weights(body, ARCH, str(tmp_path))
    for name, tensor in classifier.body.network.state_dict().items():
        assert torch.equal(body.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        ({name: tensor.float() * float("nan") for name, tensor in trained().items()}, "are not finite: .* NaN"),
        ({"epoch": 3, "optimizer": {}}, "holds no state dict: .* it has epoch, optimizer"),
        ({"layer.weight": torch.zeros(1)}, "do not fit this backbone"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_files_without_usable_weights_are_rejected_with_the_reason(
    checkpoint: object, reason: str, tmp_path: Path
) -> None:
    torch.save(checkpoint, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=reason):
        load_weights(build_body(ARCH), ARCH, str(tmp_path / "weights.pth"))


def test_a_folder_that_is_no_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="model.safetensors, which is no file; give .* a run"):
        load_weights(build_body(ARCH), ARCH, str(tmp_path))


def test_a_download_that_fails_says_what_to_do_without_a_log_of_its_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = logging.getLogger("huggingface_hub.utils._http")

    def offline(*arguments: object, **options: object) -> None:
        assert not hub.isEnabledFor(logging.WARNING)
        raise ConnectionError

    body = build_body(ARCH)
    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(WeightsError, match=r"could not be downloaded \(ConnectionError\).* needs no download"):
        load_weights(body, ARCH, "pretrained")
