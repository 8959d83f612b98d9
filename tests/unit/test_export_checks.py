"""The tolerances of exported graphs, the search for layers that stay in float32, the adaptive threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from torch import nn

from export.adaptive import lowest_threshold
from export.checks.checks import CheckError, ParityError, Tolerances, check_agreement, compare
from export.checks.verify import ParityReference
from export.graphs.onnx import DeployedModel
from export.mixed_precision import convert_until_passed
from serving.bundle.manifest import Precision
from training.networks.onnx import export_graph

LABELS_N = np.zeros(1000, np.int64)
TRAINED_NK = np.tile(np.float32([0.9, 0.1]), (1000, 1))


def with_incorrect(count: int) -> np.ndarray:
    """Probabilities like those of the trained network, with so many incorrect predictions."""
    found_NK = TRAINED_NK.copy()
    found_NK[:count] = found_NK[:count, ::-1]
    return found_NK


def check(found_NK: np.ndarray, precision: Precision = "int8", tolerances: Tolerances | None = None) -> None:
    rows = slice(0, len(found_NK))
    found = compare(found_NK, TRAINED_NK[rows], LABELS_N[rows])
    names = {"what": "the graph", "reference": "the trained network", "worst_image": "a.jpg"}
    check_agreement(found, precision, tolerances or Tolerances(), **names)


def test_int8_is_checked_by_agreement_and_accuracy() -> None:
    check(with_incorrect(6))
    with pytest.raises(ParityError, match=r"0.70 points lost \(allowed: 0.30\): more than twice what is allowed"):
        check(with_incorrect(7))
    loose = Tolerances(max_accuracy_loss=1)
    check(with_incorrect(8), tolerances=loose)
    with pytest.raises(
        ParityError, match="99.10% with the trained network on 1,000.*with 95% confidence at least 0.52%"
    ):
        check(with_incorrect(9), tolerances=loose)
    with pytest.raises(ParityError, match="98.90% .*: more than twice what is allowed"):
        check(with_incorrect(11), tolerances=loose)
    check(with_incorrect(11), tolerances=Tolerances(min_agreement=0.99, max_accuracy_loss=0.01))


def test_a_loss_of_accuracy_must_be_certain_or_large() -> None:
    labels_N = np.zeros(10_000, np.int64)
    trained_NK = np.tile(np.float32([0.9, 0.1]), (10_000, 1))
    names = {"what": "the graph", "reference": "the trained network", "worst_image": "a.jpg"}
    for broken in (40, 42):  # allowed are 30 images; the lowest loss with 95% confidence is 29.5 and 31.2
        found_NK = trained_NK.copy()
        found_NK[:broken] = found_NK[:broken, ::-1]
        found = compare(found_NK, trained_NK, labels_N)
        assert (found.broken, found.fixed) == (broken, 0)
        if broken == 40:
            check_agreement(found, "int8", Tolerances(), **names)
        else:
            with pytest.raises(ParityError, match="with 95% confidence at least 0.31%, where 0.30% may"):
                check_agreement(found, "int8", Tolerances(), **names)


def test_a_better_int8_graph_passes() -> None:
    """295 of 300 images were correct, now 297 are: an agreement of 99.33%, and nothing lost."""
    labels_N = np.zeros(300, np.int64)
    trained_NK = np.tile(np.float32([0.9, 0.1]), (300, 1))
    trained_NK[:5] = trained_NK[:5, ::-1]
    found_NK = trained_NK.copy()
    found_NK[:2] = found_NK[:2, ::-1]
    found = compare(found_NK, trained_NK, labels_N)
    assert (found.correct, found.trained_correct, found.fixed, found.broken) == (297, 295, 2, 0)
    names = {"what": "the graph", "reference": "the trained network", "worst_image": "a.jpg"}
    check_agreement(found, "int8", Tolerances(max_accuracy_loss=0), **names)


def test_one_of_few_images_may_differ() -> None:
    check(with_incorrect(1)[:20])


def test_fp16_and_fp32_are_checked_by_the_largest_difference() -> None:
    found_NK = TRAINED_NK.copy()
    found_NK[7] += np.float32([-0.001, 0.001])
    check(found_NK, "fp16")
    with pytest.raises(ParityError, match=r"by 1.0e-03 in a probability \(allowed: 1.0e-04\), most on a.jpg"):
        check(found_NK, "fp32")


def test_values_that_are_not_finite_fail() -> None:
    found_NK = TRAINED_NK.copy()
    found_NK[7] = np.nan
    with pytest.raises(CheckError, match="not finite, on a.jpg") as raised:
        check(found_NK)
    assert not isinstance(raised.value, ParityError), "layers in float32 do not help"


def test_probabilities_that_were_not_recorded_are_not_compared() -> None:
    expected_NK = np.float32([[0.7, np.nan, 0.3], [np.nan, 0.6, 0.4]])
    found = compare(np.float32([[0.7, 0.0, 0.3], [0.0, 0.5, 0.4]]), expected_NK, np.array([0, 1]))
    assert found.max_abs_diff == pytest.approx(0.1)
    assert (found.agreement, found.correct, found.worst) == (1.0, 2, 1)


def test_the_least_certain_images_are_found_where_low_probabilities_were_not_recorded() -> None:
    trained_NK = np.float32([[0.9, np.nan, 0.05], [np.nan, 0.4, 0.35], [0.6, np.nan, 0.3]])
    views_NHWC = np.zeros((3, 8, 8, 3), np.uint8)
    reference = ParityReference(DeployedModel(nn.Identity(), 1.0), [], views_NHWC, trained_NK, Tolerances())
    assert reference.confidence_N.tolist() == pytest.approx([0.9, 0.4, 0.6])
    assert reference.least_confident(4).tolist() == [1, 2, 0, 1]


SENSITIVITIES = {f"layer {row}": 1.0 / (row + 1) for row in range(20)}


def convert(keep_float: Sequence[str]) -> bytes:
    return ",".join(keep_float).encode()


def search(check: Any, most_float: int = 16) -> Any:
    return convert_until_passed(
        convert, check, lambda: SENSITIVITIES, most_float=most_float, advice="calibrate on more images"
    )


def test_the_most_sensitive_layers_stay_in_float32_until_the_checks_pass() -> None:
    tried = []

    def passes_at_the_third(graph: bytes) -> dict[str, Any]:
        tried.append(graph)
        if len(tried) < 3:
            raise ParityError("it differs too much", excess=2.0)
        return {"tries": len(tried)}

    converted = search(passes_at_the_third)
    assert tried == [b"", b"layer 0", b"layer 0,layer 1"]
    assert (converted.graph, converted.parity) == (tried[-1], {"tries": 3})
    assert converted.float_layers == {"layer 0": 1.0, "layer 1": 0.5}


def test_a_graph_that_passes_at_once_keeps_no_layer_in_float32() -> None:
    converted = search(lambda graph: {"agreement": 1.0})
    assert (converted.graph, converted.float_layers) == (b"", {})


@pytest.mark.parametrize(("most_float", "last"), [(16, 16), (8, 8), (100, 16)])
def test_the_search_ends_with_advice(most_float: int, last: int) -> None:
    tried = []

    def fails(graph: bytes) -> dict[str, Any]:
        tried.append(graph)
        raise ParityError("it differs too much", excess=2.0)

    with pytest.raises(CheckError, match="differs too much.*of 20 layers in float32: calibrate on more images"):
        search(fails, most_float)
    assert tried[-1].count(b"layer") == last


def test_the_best_result_is_reported_and_each_step_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    excesses = {0: 9.0, 1: 5.0, 2: 2.0, 3: 4.0, 4: 8.0}

    def fails(graph: bytes) -> dict[str, Any]:
        excess = excesses[graph.count(b"layer")]
        raise ParityError(f"{excess:.0f} times too much", excess)

    with pytest.raises(CheckError, match="^2 times too much. That is the best result, with 2 of 20 layers in float32"):
        search(fails, most_float=4)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "with 0 layers in float32: 9 times too much"
    assert printed[-1] == "with 4 layers in float32: 8 times too much"


def test_a_check_that_float32_cannot_help_ends_the_search() -> None:
    def fails(graph: bytes) -> dict[str, Any]:
        raise CheckError("it has an operator that TensorRT lacks")

    with pytest.raises(CheckError, match="^it has an operator"):
        search(fails)


@pytest.mark.parametrize(
    ("changed", "max_changed", "min_below", "threshold"),
    [
        ([], 0, 1, 0.55),  # no prediction changes: still the image of lowest confidence gets all views
        ([0.6, 0.8], 0, 1, 0.85),  # above the highest confidence whose prediction changes
        ([0.6, 0.8], 1, 1, 0.65),  # one of them may
        ([0.6], 0, 3, 0.75),
    ],
)
def test_the_threshold_lies_above_all_changed_predictions_but_those_allowed(
    changed: list[float], max_changed: int, min_below: int, threshold: float
) -> None:
    confidence_N = np.array([0.9, 0.5, 0.8, 0.6, 0.7])
    changed_N = np.isin(confidence_N, changed)
    assert lowest_threshold(confidence_N, changed_N, max_changed=max_changed, min_below=min_below) == pytest.approx(
        threshold
    )


def test_without_an_image_of_higher_confidence_the_threshold_lies_just_above_the_last() -> None:
    assert 0.8 < lowest_threshold(np.array([0.5, 0.8]), np.array([False, True]), max_changed=0, min_below=1) < 0.8001
    assert lowest_threshold(np.array([1.0, 1.0]), np.array([False, True]), max_changed=0, min_below=1) == 1.0


def test_a_graph_beyond_two_gigabytes_is_an_error_before_the_export() -> None:
    with pytest.raises(ValueError, match=r"has 0.0 GB of weights, and an ONNX file holds at most 0.0 GB: choose a"):
        export_graph(nn.Linear(100, 100), 8, output_name="probabilities", max_bytes=40_000)


def test_a_network_of_2_3_gigabytes_is_an_error() -> None:
    network = nn.Linear(24_000, 24_000, device="meta")  # its weights take no memory
    with pytest.raises(ValueError, match=r"has 2.3 GB of weights, and an ONNX file holds at most 2.1 GB: choose a"):
        export_graph(network, 8, output_name="probabilities")
