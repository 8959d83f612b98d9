"""Training steps, learning-rate sweeps, snapshots and batches."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.data.sources import Batch, Source, dealt, random_batches
from training.distributed import ProcessGroup
from training.fitting.loop import Epoch, TrainingError, train_epochs
from training.fitting.lr_finder import LrCurve, find_lr, smoothed, sweep_rates
from training.fitting.snapshots import interpolated, mean_weights, recompute_batch_norms
from training.fitting.trainer import Trainer, balanced_weights
from training.hardware import Hardware
from training.networks.layer_groups import head_group
from training.networks.model import Head, MeanPredictions
from training.recipes.stage import Stage

CPU = Hardware(torch.device("cpu"), None, 0)


class Points(Source):
    """Two clouds of points."""

    def __init__(self, count: int = 64, width: int = 8) -> None:
        rng = np.random.default_rng(0)
        self._labels = rng.integers(0, 2, count)
        self._inputs = (rng.normal(size=(count, width)) + 2 * self._labels[:, None]).astype(np.float32)

    def labels(self) -> np.ndarray:
        return self._labels

    def batches(self, rows: Sequence[np.ndarray], seed: int) -> Iterator[Batch]:
        for batch in rows:
            yield torch.from_numpy(self._inputs[batch]), torch.from_numpy(self._labels[batch])


def trainer_of(head: nn.Module) -> Trainer:
    return Trainer(
        head,
        [head_group(head)],
        momentum=0.9,
        weight_decay=0.0,
        freeze_bn=False,
        hardware=CPU,
        processes=ProcessGroup(),
    )


def train(trainer: Trainer, steps: int, lr: float = 0.05) -> None:
    trainer.train()
    points = Points()
    for step in range(steps):
        batch = random_batches(64, 16, step)[:1]
        ((inputs, labels),) = points.batches(batch, 0)
        trainer.step(inputs, labels, rows=len(labels), rates=[lr])


def test_a_sweep_restores_every_tensor_and_the_random_state() -> None:
    torch.manual_seed(0)
    trainer = trainer_of(Head(8, 2))
    train(trainer, 3)  # so that there is momentum to keep
    before = copy.deepcopy(trainer.state())
    modes = [module.training for module in trainer.network.modules()]
    torch.manual_seed(7)
    rng = torch.get_rng_state()
    curve = find_lr(trainer, Points(), name="head", ratios=[1.0], batch_size=16, seed=1, on_step=lambda *_: None)
    assert len(curve.lrs) > 20
    assert torch.equal(rng, torch.get_rng_state())
    assert [module.training for module in trainer.network.modules()] == modes
    after = trainer.state()
    assert before["network"].keys() == after["network"].keys()
    assert all(torch.equal(before["network"][name], after["network"][name]) for name in before["network"])
    assert before["optimizer"]["param_groups"] == after["optimizer"]["param_groups"]
    for key, state in before["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], after["optimizer"]["state"][key]["momentum_buffer"])
    assert before["optimizer"]["state"]
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_sweep_is_reproducible_and_stops_where_the_loss_diverges() -> None:
    torch.manual_seed(0)
    trainer = trainer_of(Head(8, 2))
    curves = [
        find_lr(trainer, Points(), name="head", ratios=[1.0], batch_size=16, seed=1, on_step=lambda *_: None)
        for _ in range(2)
    ]
    assert curves[0] == curves[1]
    curve = curves[0]
    assert curve.lrs == sweep_rates()[: len(curve.lrs)]
    assert len(curve.lrs) == 100 or curve.losses[-1] > 4 * min(curve.losses[10:])
    assert all(loss <= 4 * min(curve.losses[10 : at + 11]) for at, loss in enumerate(curve.losses[10:-1]))


def test_a_sweep_ends_before_a_nan() -> None:
    class Explodes(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(inputs) * (float("nan") if self.calls > 30 else 1.0)

    curve = find_lr(
        trainer_of(Explodes(8, 2)), Points(), name="x", ratios=[1.0], batch_size=16, seed=1, on_step=lambda *_: None
    )
    assert len(curve.lrs) <= 30
    assert np.isfinite(curve.losses).all()


def test_suggestions_come_from_the_curve() -> None:
    lrs = sweep_rates()
    losses = [1.0 if lr < 1e-3 else max(0.2, 1 - 0.4 * np.log10(lr / 1e-3)) for lr in lrs]
    lowest = int(np.argmin(losses))
    losses = [loss if index <= lowest else loss + 0.5 * (index - lowest) for index, loss in enumerate(losses)]
    curve = LrCurve("whole", lrs, [float(loss) for loss in losses])
    suggested = curve.suggestions()
    assert suggested["recipe"] == pytest.approx(lrs[lowest] / 10)
    assert 1e-3 <= suggested["steepest"] <= lrs[lowest]
    assert 1e-3 * 0.9 < suggested["valley"] < lrs[lowest]
    assert len(curve.shown()[0]) == 100 - 15
    rate, why = curve.recommendation()
    assert rate == suggested["recipe"]
    assert "a tenth of the rate at the lowest loss" in why
    assert curve.applied([0.1, 0.2]) == pytest.approx([rate / 2, rate])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_curve_without_a_clear_minimum_has_no_recommendation(noise: float) -> None:
    rng = np.random.default_rng(0)
    lrs = sweep_rates()
    losses = [float(1 + noise * rng.normal() + max(0.0, np.log10(lr)) * 3) for lr in lrs]
    curve = LrCurve("whole", lrs, losses)
    rate, why = curve.recommendation()
    assert rate is None
    assert curve.applied([0.1, 0.2]) == [0.1, 0.2]
    assert why.startswith("no clear minimum")


def test_the_smoothed_loss_of_a_constant_is_that_constant() -> None:
    assert smoothed([0.7] * 30) == pytest.approx([0.7] * 30)
    rates = sweep_rates()
    assert rates[0] == pytest.approx(1e-5)
    assert rates[-1] == pytest.approx(10)
    assert np.ptp(np.diff(np.log(rates))) < 1e-9


def test_averaged_weights_are_means_and_batch_norms_are_recomputed() -> None:
    torch.manual_seed(0)
    trainer = trainer_of(Head(8, 2, (0.0, 0.0)))
    snapshots = []
    for _ in range(3):
        train(trainer, 4)
        snapshots.append(copy.deepcopy(trainer.network.state_dict()))
    mean = mean_weights(snapshots)
    torch.testing.assert_close(mean["2.weight"], sum(s["2.weight"] for s in snapshots) / 3)
    trainer.network.load_state_dict(mean)
    points = Points()
    recompute_batch_norms(trainer, points, batch_size=64, seed=0)
    inputs = torch.from_numpy(points._inputs)
    torch.testing.assert_close(trainer.network[0].running_mean, inputs.mean(0))
    torch.testing.assert_close(trainer.network[0].running_var, inputs.var(0))
    assert torch.equal(trainer.network[2].weight, mean["2.weight"])
    assert trainer.network[0].momentum == 0.1
    assert not trainer.network.training


def test_averaged_predictions_are_mean_probabilities() -> None:
    torch.manual_seed(0)
    heads = [Head(8, 3).eval() for _ in range(4)]
    inputs = torch.randn(5, 8)
    together = torch.softmax(MeanPredictions(heads).eval()(inputs), 1)
    torch.testing.assert_close(together, torch.stack([torch.softmax(head(inputs), 1) for head in heads]).mean(0))


@given(count=st.integers(1, 300), batch_size=st.integers(2, 70), processes=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_row_is_in_one_batch_of_one_process(count: int, batch_size: int, processes: int, seed: int) -> None:
    batches = random_batches(count, batch_size, seed, smallest=2 * processes)
    parts = [part for batch in dealt(batches, processes) for part in batch]
    rows = [row for part in parts for row in part]
    assert sorted(rows) == list(range(count))
    if count >= 2 * processes and batch_size >= 2 * processes:
        assert min(map(len, parts)) >= 2
    assert all(len(batch) <= batch_size + 2 * processes for batch in batches)


def test_the_loss_is_summed_over_rows_and_each_group_has_its_learning_rate() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    groups = [head_group(network[0]), head_group(network[1])]
    trainer = Trainer(
        network,
        groups,
        momentum=0.0,
        weight_decay=0.0,
        freeze_bn=False,
        hardware=CPU,
        processes=ProcessGroup(),
    )
    before = copy.deepcopy(network)
    inputs, labels = torch.randn(6, 8), torch.randint(2, (6,))
    total = trainer.step(inputs, labels, rows=6, rates=[0.0, 0.5])
    loss = nn.functional.cross_entropy(before(inputs), labels)
    torch.testing.assert_close(total / 6, loss.detach())
    loss.backward()
    assert torch.equal(network[0].weight, before[0].weight)
    torch.testing.assert_close(network[1].weight, before[1].weight - 0.5 * before[1].weight.grad)


def test_decoupled_decay_scales_the_trainable_weights_for_any_learning_rate() -> None:
    torch.manual_seed(0)
    trainer = trainer_of(Head(8, 2))
    trainer.train()
    before = copy.deepcopy(trainer.network)
    trainer.step(torch.randn(6, 8), torch.randint(2, (6,)), rows=6, rates=[0.0], decay=0.1)
    torch.testing.assert_close(trainer.network[2].weight, 0.9 * before[2].weight)


def test_training_stops_before_an_epoch_whose_validation_loss_is_not_finite_is_reported() -> None:
    class Lost(Points):
        def batches(self, rows: Sequence[np.ndarray], seed: int) -> Iterator[Batch]:
            for inputs, labels in super().batches(rows, seed):
                yield torch.full_like(inputs, float("nan")), labels

    finished: list[Epoch] = []
    epochs = train_epochs(
        trainer_of(Head(8, 2)),
        Stage(cycle_len=2),
        name="head",
        train=Points(),
        valid=Lost(),
        rates=[0.01],
        batch_size=16,
        seed=0,
        done=0,
        before=0,
        on_batch=lambda done, count: None,
    )
    with pytest.raises(TrainingError, match=r"validation loss of stage head is nan at its step 3 .*--stages.head.lr"):
        finished.extend(epochs)
    assert finished == []


def test_interpolated_weights_lie_between_and_meet_both_ends_exactly() -> None:
    before, after = (
        {"weight": torch.tensor(values), "count": torch.tensor(count)}
        for values, count in (([0.1, 0.3], 1), ([0.3, -0.7], 5))
    )
    assert interpolated(before, after, 0.25)["weight"].tolist() == pytest.approx([0.15, 0.05])
    assert interpolated(before, after, 0.25)["count"] == 5
    assert torch.equal(interpolated(before, after, 0)["weight"], before["weight"])
    assert torch.equal(interpolated(before, after, 1)["weight"], after["weight"])


def test_balanced_classes_count_the_same_in_the_loss() -> None:
    utils = pytest.importorskip("sklearn.utils.class_weight", reason="needs scikit-learn")
    labels = np.repeat([0, 1, 2], [50, 10, 4])
    weights = balanced_weights(labels, 4).numpy()
    np.testing.assert_allclose(
        weights[:3], utils.compute_class_weight("balanced", classes=np.arange(3), y=labels), 1e-6
    )
    assert weights[3] == 0
    assert weights[labels].mean() == pytest.approx(1)
