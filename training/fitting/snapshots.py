"""Averages the networks at the ends of cycles: their weights or their predictions.

Averaging predictions is the snapshot ensemble (Huang et al. 2017); averaging weights gives one network,
whose batch-norm statistics are computed again (Izmailov et al. 2018, section 3.2).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from serving.system.files import write_atomically
from training.data.sources import Source
from training.fitting.session import FitSession
from training.fitting.trainer import Trainer
from training.networks.model import Classifier, MeanPredictions, Network

SNAPSHOTS = "snapshots"
StateDict = dict[str, Tensor]


def save_snapshot(folder: Path, cycle: int, state: Mapping[str, Tensor]) -> None:
    """Write the state at the end of a cycle; cycles count from 0, files from 1."""
    (folder / SNAPSHOTS).mkdir(exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    write_atomically(_path(folder, cycle), safetensors.torch.save(contiguous))


def average_snapshots(
    session: FitSession, trainer: Trainer, cycles: int, *, train: Source, valid: Source, seed: int
) -> tuple[Network, Tensor]:
    """One network of the snapshots of the last stage, and its validation logits `[N, K]`.

    Args:
        trainer: of the stage, for the session's classifier, which is changed in place, or only for its head.
    """
    classifier = session.classifier
    states = [safetensors.torch.load_file(_path(session.folder, cycle)) for cycle in range(cycles)]
    if session.recipe.average == "weights":
        trainer.network.load_state_dict(mean_weights(states))
        recompute_batch_norms(trainer, train, batch_size=session.recipe.batch_size, seed=seed)
        return classifier, trainer.predict(valid)
    logits, networks = [], []
    for state in states:
        trainer.network.load_state_dict(state)
        logits.append(torch.log_softmax(trainer.predict(valid), 1))
        networks.append(copy.deepcopy(classifier).cpu())
    mean_logits = torch.logsumexp(torch.stack(logits), 0) - torch.tensor(float(cycles)).log()
    if len(trainer.trained) == 1:  # the body is the same in all: it runs once
        heads = [network.head for network in networks]
        return Classifier(networks[0].body, MeanPredictions(heads)).eval(), mean_logits
    return MeanPredictions(networks).eval(), mean_logits


def _path(folder: Path, cycle: int) -> Path:
    return folder / SNAPSHOTS / f"cycle-{cycle + 1}.safetensors"


def interpolated(before: StateDict, after: StateDict, part: float) -> StateDict:
    """`part` of one network's weights and the rest of another's (WiSE-FT, Wortsman et al. 2022).

    Between a network and what it was fine-tuned to, the weights in between keep more of the accuracy on images of
    another origin than the fine-tuned ones. Counters are those of the second.

    Args:
        part: 0 gives `before`, 1 gives `after`, both exactly.
    """
    if part in (0, 1):
        return dict(after if part else before)
    return _mixed(after, lambda name, tensor: torch.lerp(before[name].double(), tensor, part))


def mean_weights(snapshots: Sequence[StateDict]) -> StateDict:
    """The mean of each floating-point tensor; counters are the last snapshot's."""
    return _mixed(snapshots[-1], lambda name, _: torch.stack([each[name] for each in snapshots]).double().mean(0))


def _mixed(last: StateDict, mix: Callable[[str, Tensor], Tensor]) -> StateDict:
    """A state with each floating-point tensor replaced by a mixture, computed in float64."""
    return {
        name: mix(name, tensor.double()).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }


def recompute_batch_norms(trainer: Trainer, source: Source, *, batch_size: int, seed: int) -> None:
    """Set the statistics of the trainable batch norms to their mean over one epoch of training data.

    Weights and the statistics of frozen batch norms stay as they are.
    """
    trainer.train()
    trained = [
        module
        for module in trainer.network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats
    ]
    momenta = [module.momentum for module in trained]
    for module in trained:
        module.reset_running_stats()
        module.momentum = None  # a cumulative mean
    processes = trainer.processes
    mine = [parts[processes.rank] for parts in source.epoch(batch_size, seed, processes.count)]
    with torch.no_grad(), trainer.shared_norms():
        for inputs, _ in source.batches(mine, seed):
            trainer.network(inputs.to(trainer.hardware.device))
    for module, momentum in zip(trained, momenta, strict=True):
        module.momentum = momentum
    trainer.network.eval()
