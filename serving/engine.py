"""A checked model in; probabilities for batches of views out.

An engine is one instance of a model: it computes one batch at a time. Several instances side by side make a plan.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from serving.bundle import INPUT_NAME, OUTPUT_NAME, Bundle, BundleError, Manifest, Precision

ort.set_default_logger_severity(3)  # errors; warnings about a graph are for those who export it

CPU_PRECISIONS: tuple[Precision, ...] = ("int8", "fp32", "fp16")
"""What a CPU runs fastest, first. Each has passed the export's accuracy gate; fp16 is emulated on most CPUs."""


class Engine(Protocol):
    """One instance of a model. `run` is called by one thread at a time."""

    @property
    def max_batch_size(self) -> int:
        """Most rows that one call takes."""

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch.

        Args:
            images_NHWC: uint8 `[N, H, W, 3]`, RGB views of the network's size; 1 to `max_batch_size` of them.

        Returns:
            float32 `[N, K]`: the probabilities of the K classes.
        """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model uses the machine: which one serves best differs between machines and models."""

    instances: int
    """Batches computed at once."""
    threads: int
    """Threads of each instance."""
    max_batch_size: int
    """Most rows in one engine call."""

    def __post_init__(self) -> None:
        for name in ("instances", "threads", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def __str__(self) -> str:
        instances = f"{self.instances} instance{'s' * (self.instances > 1)}"
        return f"{instances} x {self.threads} thread{'s' * (self.threads > 1)}"


class OnnxEngine:
    """A model in ONNX Runtime on the CPU. Raises what ONNX Runtime raises if a batch cannot be computed."""

    def __init__(self, session: ort.InferenceSession, max_batch_size: int) -> None:
        self._session = session
        self.max_batch_size = max_batch_size

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities_NK: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC})[0]
        return probabilities_NK


def choose_precision(manifest: Manifest) -> Precision:
    """The precision that a CPU runs fastest, of those in the bundle.

    Raises:
        BundleError: if all of its files are for TensorRT.
    """
    present = {artifact.precision for artifact in manifest.artifacts if artifact.runtime == "onnxruntime"}
    for precision in CPU_PRECISIONS:
        if precision in present:
            return precision
    raise BundleError(f"{manifest.resource} has files for TensorRT only; export it with --precisions int8 or fp32 too")


def load_engines(bundle: Bundle, precision: Precision, plan: Plan) -> list[OnnxEngine]:
    """The plan's instances of one artifact of a bundle.

    Raises:
        BundleError: if the artifact's file is not what the manifest says, cannot be loaded, or computes something
            other than what the manifest describes.
    """
    artifact = bundle.artifact(precision)
    model = bundle.read(artifact)
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    # A single-threaded session runs in the thread that calls it, so one session, with one copy of the weights,
    # serves all instances as fast as one session each.
    sessions = []
    for _ in range(1 if plan.threads == 1 else plan.instances):
        try:
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"{bundle.folder / artifact.file} cannot be loaded: {error}") from error
        sessions.append(session)
    try:
        _check_graph(sessions[0], bundle.manifest)
    except BundleError as error:
        raise BundleError(f"{bundle.folder / artifact.file} does not fit its manifest: {error}") from error
    return [OnnxEngine(sessions[i % len(sessions)], plan.max_batch_size) for i in range(plan.instances)]


def _check_graph(session: ort.InferenceSession, manifest: Manifest) -> None:
    crop = manifest.preprocess.crop
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _check_array("input", inputs, INPUT_NAME, "tensor(uint8)", [crop, crop, 3])
    _check_array("output", outputs, OUTPUT_NAME, "tensor(float)", [len(manifest.classes)])


def _check_array(side: str, arrays: list[ort.NodeArg], name: str, kind: str, shape: list[int]) -> None:
    """One array of the graph's one side; its first dimension, the batch, must be free."""
    expected = f"{name} {kind} [N, {', '.join(map(str, shape))}]"
    found = "; ".join(f"{array.name} {array.type} {array.shape}" for array in arrays)
    if len(arrays) != 1 or arrays[0].name != name or arrays[0].type != kind:
        raise BundleError(f"the graph's {side} is {found}, expected {expected}")
    rows, *rest = arrays[0].shape
    if isinstance(rows, int):
        raise BundleError(f"the graph's {side} has a fixed batch of {rows}, expected {expected} with any N")
    if rest != shape:
        raise BundleError(f"the graph's {side} is {found}, expected {expected}")
