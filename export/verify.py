"""An ONNX graph, the network that was trained, and real photos in; figures of how they agree out, or a GateError.

Nothing that fails a gate is written.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.to_onnx import Deployable
from serving.bundle import INPUT_NAME, OUTPUT_NAME
from serving.preprocess import Preprocess
from serving.views import look
from training.data import Photo
from training.extract import cpu_count

GATE_BATCHES = (1, 3, 32)
FP32_TOLERANCE = 1e-4
"""Largest difference of a probability between torch and ONNX Runtime."""


class GateError(RuntimeError):
    """A graph that does not do what was trained; the message says what differs, where and by how much."""


def check_graph(graph: bytes, *, crop: int, classes: int) -> None:
    """Gate: the graph is valid ONNX, with a symbolic batch dimension and the engine contract's input and output.

    Raises:
        GateError: if it is not.
    """
    model = onnx.load_from_string(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the ONNX checker refuses the graph: {error}") from error
    for kind, values, name, element, shape in (
        ("input", model.graph.input, INPUT_NAME, onnx.TensorProto.UINT8, (crop, crop, 3)),
        ("output", model.graph.output, OUTPUT_NAME, onnx.TensorProto.FLOAT, (classes,)),
    ):
        if [value.name for value in values] != [name]:
            raise GateError(f"the graph's {kind}s are {[value.name for value in values]}; expected only {name!r}")
        tensor = values[0].type.tensor_type
        sizes = tensor.shape.dim
        if tensor.elem_type != element or tuple(size.dim_value for size in sizes[1:]) != shape:
            raise GateError(f"the graph's {kind} {name} has another type or shape than [N, {shape}]: {tensor}")
        if not sizes[0].dim_param:
            raise GateError(f"the graph's {kind} {name} has a fixed batch of {sizes[0].dim_value}, not a symbolic one")


def load_views(
    photos: Sequence[Photo], preprocess: Preprocess, on_progress: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """View 0 of each photo, uint8 `[N, crop, crop, 3]`.

    Raises:
        DataError: if a photo is gone, or no longer what it was when the run was made.
    """
    views = np.empty((len(photos), preprocess.crop, preprocess.crop, 3), np.uint8)

    def load(item: tuple[int, Photo]) -> None:
        row, photo = item
        views[row] = look(preprocess.canvas(photo.read()), preprocess.crop)[0]

    with ThreadPoolExecutor(cpu_count()) as pool:
        for done, _ in enumerate(pool.map(load, enumerate(photos)), 1):
            on_progress(done, len(photos))
    return views


def check_parity(
    session: onnxruntime.InferenceSession,
    deployable: Deployable,
    photos: Sequence[Photo],
    views_NHWC: NDArray[np.uint8],
    tolerance: float = FP32_TOLERANCE,
) -> dict[str, Any]:
    """Gate: torch and ONNX Runtime give the same probabilities for the same pixels, in batches of 1, 3 and 32.

    Returns:
        The largest difference by batch size, and how many photos were compared.

    Raises:
        GateError: naming the photo that differs most.
    """
    largest: dict[str, float] = {}
    for batch in GATE_BATCHES:
        rows = np.arange(batch) % len(photos)  # a smaller set is repeated: the batch size is what is tried
        images = views_NHWC[rows]
        with torch.inference_mode():
            expected = deployable(torch.from_numpy(images)).numpy()
        difference = np.abs(session.run(None, {INPUT_NAME: images})[0] - expected).max(1)
        worst = int(difference.argmax())
        largest[str(batch)] = float(difference[worst])
        if not difference[worst] <= tolerance:
            raise GateError(
                f"ONNX Runtime and torch differ by {difference[worst]:.2e} in a batch of {batch} (allowed: "
                f"{tolerance:.0e}), most on {photos[rows[worst]].path}"
            )
    return {"max_abs_diff_by_batch": largest, "tolerance": tolerance}


def check_answers(
    session: onnxruntime.InferenceSession,
    photos: Sequence[Photo],
    views_NHWC: NDArray[np.uint8],
    trained_NK: NDArray[np.float32],
    on_progress: Callable[[int, int], None],
    tolerance: float = FP32_TOLERANCE,
) -> dict[str, Any]:
    """Gate: on every validation photo the graph gives the probabilities, and so the accuracy, of the trained network.

    Args:
        trained_NK: float32, what the run recorded for each photo.

    Returns:
        The largest difference, the number of equal answers, and the accuracy of both.

    Raises:
        GateError: naming the photo that differs most.
    """

    def run(row: int) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, {INPUT_NAME: views_NHWC[row : row + 1]})[0]
        return probabilities[0]

    answers = np.empty_like(trained_NK)
    with ThreadPoolExecutor(cpu_count()) as pool:
        for row, probabilities in enumerate(pool.map(run, range(len(photos)))):
            answers[row] = probabilities
            on_progress(row + 1, len(photos))
    labels = np.array([photo.label for photo in photos])
    correct, trained_correct = (int((p.argmax(1) == labels).sum()) for p in (answers, trained_NK))
    difference = np.abs(answers - trained_NK).max(1)
    worst = int(difference.argmax())
    if not difference[worst] <= tolerance or correct != trained_correct:
        raise GateError(
            f"of {len(photos):,} validation photos the graph has {correct:,} right and the trained network "
            f"{trained_correct:,}; the largest difference of a probability is {difference[worst]:.2e} (allowed: "
            f"{tolerance:.0e}), on {photos[worst].path}"
        )
    return {
        "photos": len(photos),
        "max_abs_diff": float(difference[worst]),
        "agreement": float((answers.argmax(1) == trained_NK.argmax(1)).mean()),
        "correct": correct,
        "trained_correct": trained_correct,
    }
