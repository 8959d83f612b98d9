"""Engines of ONNX Runtime, on a CPU or a GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Artifact, Bundle, BundleError, Manifest, Precision
from serving.engine.base import Device, EngineLayout, bucket_sizes
from serving.engine.cuda import raise_if_lost
from serving.engine.onnx_package import check_complete
from serving.engine.separate import SeparateEngine

check_complete()
ort.set_default_logger_severity(3)  # errors only: warnings about a graph are for its export

CPU_PRECISIONS: tuple[Precision, ...] = ("int8", "fp32", "fp16")
"""The fastest on a CPU first. Each file has passed the export's accuracy check; most CPUs emulate fp16."""
CUDA_PROVIDER = "CUDAExecutionProvider"
Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Computes a batch: uint8 `[N, H, W, 3]` to probabilities float32 `[N, K]`."""

AlgorithmSearch = Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]
SEARCH: AlgorithmSearch = "EXHAUSTIVE"
"""cuDNN times its algorithms when a batch size is warmed. It is ONNX Runtime's default; `make gpu-check` measures it
against HEURISTIC, which starts faster."""


def _cuda_options(precision: Precision, algorithm_search: AlgorithmSearch) -> dict[str, str]:
    """Options of the CUDA provider. TF32 rounds float32 to 10 bits of mantissa, beyond what fp32's check allows."""
    return {"cudnn_conv_algo_search": algorithm_search, "use_tf32": "0" if precision == "fp32" else "1"}


class OnnxEngine:
    """One instance of a model in ONNX Runtime; an `Engine`. `run` raises DeviceLost, or what ONNX Runtime raises."""

    def __init__(self, session: ort.InferenceSession, max_batch_size: int, device: Device = "cpu") -> None:
        self._session: ort.InferenceSession | None = session
        self._device = device
        self._sizes = bucket_sizes(1, max_batch_size) if device == "cuda" else []
        self.max_batch_size = max_batch_size

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch; see Engine.run.

        On a GPU it is padded to the next size of `bucket_sizes`: cuDNN chooses its algorithms anew for each size.
        """
        assert self._session is not None, "a closed engine was run"
        count = len(images_NHWC)
        size = next((size for size in self._sizes if size >= count), count)
        if size > count:
            padding = ((0, size - count), (0, 0), (0, 0), (0, 0))
            images_NHWC = np.pad(images_NHWC, padding)
        try:
            probabilities_NK: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC})[0]
        except Exception:
            if self._device == "cuda":
                raise_if_lost()
            raise
        return probabilities_NK[:count]

    def warm_up(self, crop: int) -> None:
        """On a GPU, compute each batch size once, so that no request waits until cuDNN has chosen its algorithms.

        Args:
            crop: side of the input in pixels.
        """
        for size in self._sizes:
            self.run(np.zeros((size, crop, crop, 3), np.uint8))

    def close(self) -> None:
        """Release the session; its memory is freed with the last of the instances that share it."""
        self._session = None


def choose_precision(manifest: Manifest) -> Precision:
    """Choose the precision of the bundle that is fastest on a CPU.

    Raises:
        BundleError: if all files of the bundle are for TensorRT.
    """
    present = {artifact.precision for artifact in manifest.artifacts if artifact.runtime == "onnxruntime"}
    for precision in CPU_PRECISIONS:
        if precision in present:
            return precision
    raise BundleError(f"{manifest.resource} has files for TensorRT only; export it with --precisions int8 or fp32 too")


class OnnxModel:
    """One artifact of a bundle, read and checked, from which engines are made."""

    def __init__(
        self, bundle: Bundle, artifact: Artifact, device: Device = "cpu", algorithm_search: AlgorithmSearch = SEARCH
    ) -> None:
        """Read the file.

        Args:
            algorithm_search: how cuDNN chooses an algorithm for each convolution and batch size, on a GPU.

        Raises:
            BundleError: if it is not what the manifest says.
        """
        self._bundle, self._artifact = bundle, artifact
        self._path = bundle.folder / artifact.file
        self._manifest = bundle.manifest
        self._content = bundle.read(artifact)
        self._device = device
        self._provider_options = _cuda_options(artifact.precision, algorithm_search) if device == "cuda" else {}

    def make_engines(self, layout: EngineLayout) -> list[OnnxEngine]:
        """Make the instances of a layout.

        Raises:
            BundleError: if the graph cannot be loaded on this device, or does not fit its manifest.
        """
        options = _session_options(layout.threads)
        # A single-threaded session runs in the thread that calls it. So one session, with one copy of the weights,
        # serves all instances as fast as one session each. On a GPU each session has its own stream.
        shared = layout.threads == 1 and self._device == "cpu"
        sessions = [self._make_session(options) for _ in range(1 if shared else layout.instances)]
        try:
            _check_graph(sessions[0], self._manifest)
        except BundleError as error:
            raise BundleError(f"{self._path} does not fit its manifest: {error}") from error
        engines = [
            OnnxEngine(sessions[i % len(sessions)], layout.max_batch_size, self._device)
            for i in range(layout.instances)
        ]
        for engine in engines:
            engine.warm_up(self._manifest.preprocess.crop)
        return engines

    def make_single_row_engine(self, threads: int, cpus: Sequence[int]) -> OnnxEngine:
        """Make one instance that computes one row at a time on several CPUs.

        Args:
            threads: at least 2, including the thread that calls `run`.
            cpus: the first is for the calling thread, the other threads are bound to the next ones; with fewer than
                `threads` of them, none is bound.

        Raises:
            BundleError: if the graph cannot be loaded.
        """
        options = _session_options(threads)
        if len(cpus) >= threads:
            affinities = ";".join(str(cpu + 1) for cpu in cpus[1:threads])  # ONNX Runtime counts CPUs from 1
            options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
        return OnnxEngine(self._make_session(options), 1)

    def make_separate_engine(self, max_batch_size: int) -> SeparateEngine:
        """Make one single-threaded instance in a process of its own.

        Raises:
            OSError: if the process cannot be started.
        """
        return SeparateEngine(self._content, partial(self._bundle.read, self._artifact), max_batch_size)

    def _make_session(self, options: ort.SessionOptions) -> ort.InferenceSession:
        provider = {"cpu": "CPUExecutionProvider", "cuda": CUDA_PROVIDER}[self._device]
        if self._device == "cuda":
            # fail if the GPU cannot run a layer, instead of running it on the CPU
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = ort.InferenceSession(self._content, options, providers=[(provider, self._provider_options)])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"{self._path} cannot be loaded: {error}") from error
        if (active := session.get_providers()[0]) != provider:
            raise BundleError(
                f"{self._path} was to run on {provider}, and ONNX Runtime chose {active}: its CUDA libraries do not "
                "load; pip install 'onnxruntime-gpu[cuda,cudnn]', or use --engine cpu"
            )
        return session


def load_graph(content: bytes) -> Compute:
    """A function that computes batches in the threads that call it, on a CPU, with the bits of `make_engines`.

    Args:
        content: a serialised ModelProto.
    """
    return OnnxEngine(ort.InferenceSession(content, _session_options(1), providers=["CPUExecutionProvider"]), 1).run


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads spin for each other during a call, and not after it, when others need the CPUs
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _check_graph(session: ort.InferenceSession, manifest: Manifest) -> None:
    crop = manifest.preprocess.crop
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _check_array("input", inputs, INPUT_NAME, "tensor(uint8)", [crop, crop, 3])
    _check_array("output", outputs, OUTPUT_NAME, "tensor(float)", [len(manifest.classes)])


def _check_array(side: str, arrays: list[ort.NodeArg], name: str, kind: str, shape: list[int]) -> None:
    """Check the only array of one side of the graph; its first dimension, the batch, must be variable."""
    expected = f"{name} {kind} [N, {', '.join(map(str, shape))}]"
    found = "; ".join(f"{array.name} {array.type} {array.shape}" for array in arrays)
    if len(arrays) != 1 or arrays[0].name != name or arrays[0].type != kind:
        raise BundleError(f"the graph's {side} is {found}, expected {expected}")
    rows, *rest = arrays[0].shape
    if isinstance(rows, int):
        raise BundleError(f"the graph's {side} has a fixed batch of {rows}, expected {expected} with any N")
    if rest != shape:
        raise BundleError(f"the graph's {side} is {found}, expected {expected}")
