"""Which steps of a recipe are kept, decided from held-out images."""

import numpy as np
import pytest

from training.evaluation.trials import HeldOut, Trial, judge


def held_out(strength: float, *, shifted: float | None = None, count: int = 400, seed: int = 0) -> HeldOut:
    """Logits that favour the label, the more the stronger; the noise is the same for every strength."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 3, count)
    noise_2NK = rng.normal(size=(2, count, 3)).astype(np.float32)
    one_hot_NK = np.eye(3, dtype=np.float32)[labels_N]
    strengths = (strength, strength if shifted is None else shifted)
    clean_NK, shifted_NK = (noise_NK + each * one_hot_NK for noise_NK, each in zip(noise_2NK, strengths, strict=True))
    return HeldOut(clean_NK, shifted_NK, labels_N)


def test_a_better_step_is_kept_in_the_part_with_the_lowest_loss() -> None:
    trial = judge("whole", None, {0.0: held_out(2), 0.5: held_out(3), 1.0: held_out(2.5)}, 1.0)
    assert trial.part == 0.5
    assert trial.shown.part == 0.5
    assert trial.shown.paired.fixed > trial.shown.paired.broken
    assert trial.shown.paired.p_value < 0.05
    assert "50% of its change" in trial.describe()


def test_a_worse_step_is_left_out() -> None:
    trial = judge("whole", None, {0.0: held_out(2), 0.5: held_out(1.5), 1.0: held_out(1)}, 1.0)
    assert trial.part == 0
    assert trial.hopeless
    assert "left out" in trial.describe()


def test_a_step_that_is_worse_on_shifted_images_is_left_out_although_it_is_better_on_others() -> None:
    trial = judge("whole", None, {0.0: held_out(2), 1.0: held_out(2.3, shifted=0.5)}, 1.0)
    assert trial.candidates[1].errors < trial.before.errors
    assert trial.part == 0


def test_a_step_with_the_same_quality_is_seldom_kept_and_never_with_more_errors() -> None:
    trials = [
        judge("same", None, {0.0: held_out(2, seed=seed), 1.0: held_out(2, seed=seed + 1)}, 1.0)
        for seed in range(0, 600, 2)
    ]
    kept = [trial for trial in trials if trial.part]
    assert len(kept) <= 0.025 * len(trials)
    for trial in kept:
        before, after = trial.before, trial.candidates[1]
        assert after.errors + after.shifted_errors <= before.errors + before.shifted_errors


def test_an_unchanged_network_is_no_improvement() -> None:
    trial = judge("same", None, {0.0: held_out(2), 1.0: held_out(2)}, 1.0)
    assert trial.part == 0
    assert trial.candidates[1].nll_change == 0
    assert not trial.hopeless


def test_the_first_step_is_kept_whatever_it_does() -> None:
    trial = judge("head", 224, {1.0: held_out(-1)}, 1.0)
    assert trial.part == 1
    assert trial.before is trial.shown
    assert not trial.hopeless


def test_a_temperature_changes_nothing() -> None:
    one, other = held_out(2), held_out(2)
    scaled = HeldOut(3 * other.clean_NK, 3 * other.shifted_NK, other.labels_N)
    trial = judge("scaled", None, {0.0: one, 1.0: scaled}, 1.0)
    assert trial.candidates[1].nll == pytest.approx(trial.before.nll, rel=1e-5)
    assert trial.candidates[1].shifted_nll == pytest.approx(trial.before.shifted_nll, rel=1e-5)


def test_a_trial_is_read_from_its_json() -> None:
    trial = judge("whole", 128, {0.0: held_out(2), 0.5: held_out(3)}, 1.5)
    fields = trial.to_json()
    assert Trial.from_json(fields) == trial
    assert fields["candidates"][1].keys() >= {"gained", "lost", "p_value"}  # the names in earlier checkpoints
