"""ONNX Runtime on a GPU: batches are padded to a few sizes, each of which is warmed. A fake session takes its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from serving.bundle.manifest import Bundle
from serving.engine.base import EngineLayout, bucket_sizes
from serving.engine.onnx import OnnxEngine, OnnxModel
from tests.support.fake_gpu import CROP, FakeGpu
from tests.support.fake_gpu_bundle import write_fake_bundle


class FakeSession:
    """Records the batch sizes that it computes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, names: list[str], inputs: Mapping[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        images_NHWC = inputs["images"]
        self.sizes.append(len(images_NHWC))
        return [FakeGpu().answers(images_NHWC)]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_fake_bundle(tmp_path)


def test_sizes_are_powers_of_two_and_both_ends() -> None:
    assert bucket_sizes(1, 6) == [1, 2, 4, 6]
    assert bucket_sizes(3, 32) == [3, 4, 8, 16, 32]
    assert bucket_sizes(1, 1) == [1]


def test_batches_are_padded_and_only_their_own_rows_come_back() -> None:
    session = FakeSession()
    engine = OnnxEngine(session, 6, "cuda")
    images_NHWC = np.random.default_rng(0).integers(0, 256, (6, CROP, CROP, 3), np.uint8)
    for count in range(1, 7):
        np.testing.assert_array_equal(engine.run(images_NHWC[:count]), FakeGpu().answers(images_NHWC[:count]))
    assert session.sizes == [1, 2, 4, 4, 6, 6]


def test_on_a_cpu_nothing_is_padded_or_warmed() -> None:
    session = FakeSession()
    engine = OnnxEngine(session, 6)
    engine.warm_up(CROP)
    engine.run(np.zeros((5, CROP, CROP, 3), np.uint8))
    assert session.sizes == [5]


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("fp16", "1")])
def test_each_instance_is_warmed_at_every_size_and_fp32_is_computed_without_tf32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str, tf32: str
) -> None:
    sessions: list[FakeSession] = []
    given: list[Any] = []

    def make_session(content: bytes, options: object, providers: list[Any]) -> FakeSession:
        real = open_real(content)
        session = FakeSession()
        session.get_providers = lambda: [providers[0][0]]  # type: ignore[attr-defined]
        session.get_inputs, session.get_outputs = real.get_inputs, real.get_outputs  # type: ignore[attr-defined]
        sessions.append(session)
        given.extend(providers)
        return session

    real_session = onnxruntime.InferenceSession

    def open_real(content: bytes) -> onnxruntime.InferenceSession:
        return real_session(content, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", make_session)
    artifact = bundle.manifest.artifacts[0]
    object.__setattr__(artifact, "precision", precision)
    model = OnnxModel(bundle, artifact, "cuda")
    model.make_engines(EngineLayout(instances=2, threads=1, max_batch_size=8))
    assert [session.sizes for session in sessions] == [[1, 2, 4, 8], [1, 2, 4, 8]]
    assert given[0] == ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": tf32})
