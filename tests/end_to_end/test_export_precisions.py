"""fp16 and INT8: what `export bundle` writes of them and which checks they pass."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export.calibrate import choose_images, measure_ranges
from export.checks.checks import CheckError
from export.checks.verify import check_listed_operators
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.quantize import measure_int8_sensitivity, quantize
from serving.bundle.manifest import Bundle, open_bundle
from serving.engine.onnx import load_graph
from tests.support.commands import run_here
from tests.support.fake_gpu import FakeGpu
from training.data.images import LabelledImage
from training.networks.model import MeanPredictions
from training.runs.run import open_run

ALL = ("--precisions", "fp32", "fp16", "int8", "int8-trt")
LOOSE = ("--min-agreement", "0.6", "--max-accuracy-loss", "0.4", "--max-diff-fp16", "0.05")
"""The network has random weights, so its predictions are near one another: these tests are not about accuracy."""


@pytest.fixture(scope="module")
def bundle(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models = tmp_path_factory.mktemp("models")
    finished = run_here(
        *("export", "bundle", "--run", fitted, "--models", models, "--name", "pets", "--calibration-images", 16),
        *ALL,
        *LOOSE,
    )
    assert finished.returncode == 0, finished.stderr
    return open_bundle(models / "pets" / "1")


def test_another_export_of_the_run_gives_the_same_bytes(fitted: Path, bundle: Bundle, tmp_path: Path) -> None:
    again = ("export", "bundle", "--run", fitted, "--models", tmp_path, "--name", "pets", "--calibration-images", 16)
    finished = run_here(*again, "--precisions", "fp16", "int8", "int8-trt", *LOOSE, "--require", "int8")
    for name in ("fp16", "int8", "int8-trt"):
        file = f"model.{name}.onnx"
        assert (tmp_path / "pets" / "1" / file).read_bytes() == (bundle.folder / file).read_bytes(), finished.stderr


def graph_of(bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load(bundle.folder / f"model.{name}.onnx")


def test_all_precisions_are_written_with_their_parity(bundle: Bundle) -> None:
    assert [artifact.file for artifact in bundle.manifest.artifacts] == [
        "model.fp32.onnx",
        "model.fp16.onnx",
        "model.int8.onnx",
        "model.int8-trt.onnx",
    ]
    for artifact in bundle.manifest.artifacts:
        compute = load_graph(bundle.read(artifact))
        images = np.zeros((3, 160, 160, 3), np.uint8)
        np.testing.assert_allclose(compute(images).sum(1), 1, atol=1e-5)
        assert artifact.parity["photos"] == 16
        assert set(artifact.parity["max_abs_diff_by_batch"]) == {"1", "3", "32"}
    assert bundle.artifact("int8").file == "model.int8.onnx"
    assert bundle.artifact("int8", "tensorrt").file == "model.int8-trt.onnx"
    assert bundle.artifact("fp16", "tensorrt").file == "model.fp16.onnx"
    assert bundle.artifact("int8").quantization["photos"] == 16
    assert bundle.artifact("int8").quantization["source"] == "training split"


def test_openvino_cross_checks_the_graphs(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    for precision in ("fp32", "int8"):
        second = bundle.artifact(precision).parity["second_runtime"]
        assert second["name"].startswith("openvino ")
        assert second["photos"] == 16


def results_by_class(page: str) -> str:
    """The table of precision, recall, F1 and support."""
    found = re.search(r"<tr><th>class</th>.*?</table>", page, re.DOTALL)
    return found[0] if found else ""


def test_the_page_shows_every_file_its_agreement_and_the_results_by_class(bundle: Bundle, fitted: Path) -> None:
    page = (bundle.folder / "bundle.html").read_text(encoding="utf-8")
    for artifact in bundle.manifest.artifacts:
        assert artifact.file in page
        assert f"{100 * artifact.parity['agreement']:.2f}%" in page
    report = (fitted / "report.html").read_text(encoding="utf-8")
    assert results_by_class(page) == results_by_class(report) != ""
    assert "<script" not in page


def test_fp16_computes_the_body_in_half_and_the_rest_in_float(bundle: Bundle) -> None:
    model = onnx.shape_inference.infer_shapes(graph_of(bundle, "fp16"))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    kept = bundle.artifact("fp16").quantization["float_layers"]
    halves = [node for node in convolutions if kinds[node.output[0]] == TensorProto.FLOAT16]
    assert len(halves) == len(convolutions) or kept
    assert halves
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    assert kinds[softmax.input[0]] == TensorProto.FLOAT
    assert model.graph.node[0].op_type == "Cast"
    size, full = (bundle.folder / f"model.{name}.onnx" for name in ("fp16", "fp32"))
    assert size.stat().st_size < full.stat().st_size


def test_int8_for_tensorrt_is_signed_symmetric_and_paired_before_weighted_layers_only(bundle: Bundle) -> None:
    graph = graph_of(bundle, "int8-trt").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantized
    for node in quantized:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert all(producers[name].op_type == "DequantizeLinear" for name in node.input[:2]), node.name
            for follower in consumers[node.output[0]]:
                # outputs of weighted layers are read in float32; only a residual addition's skip has a pair of its own
                if follower.op_type == "QuantizeLinear":
                    (pair,) = consumers[follower.output[0]]
                    readers = {reader.op_type for reader in consumers[pair.output[0]]}
                    assert readers <= {"Add", "Conv", "Gemm"}, node.name
        if node.op_type == "Add":
            pairs = [name for name in node.input if producers[name].op_type == "DequantizeLinear"]
            assert len(pairs) == 1, "a residual addition has a pair on its skip branch, and only there"


def test_int8_for_a_cpu_has_unsigned_activations_and_per_channel_weights(bundle: Bundle) -> None:
    graph = graph_of(bundle, "int8").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            images, weights = (producers[name] for name in node.input[:2])
            assert constants[images.input[2]].dtype == np.uint8
            assert constants[weights.input[0]].dtype == np.int8
            assert np.abs(constants[weights.input[0]].astype(int)).max() <= 64, "products must not saturate 16 bits"
            assert len(constants[weights.input[1]]) == len(constants[weights.input[0]])
    (shift,) = (node for node in graph.node if node.op_type == "Sub")
    assert producers[shift.input[0]].op_type == "Transpose", "normalisation stays in float"


def test_precisions_can_be_chosen_and_failed_checks_leave_nothing(fitted: Path, tmp_path: Path) -> None:
    common = ("export", "bundle", "--run", fitted, "--name", "pets")
    finished = run_here(*common, "--models", tmp_path / "a", "--precisions", "fp32", "int8", *LOOSE)
    assert finished.returncode == 0, finished.stderr
    written = open_bundle(tmp_path / "a/pets/1").manifest.artifacts
    assert [artifact.precision for artifact in written] == ["fp32", "int8"]
    failed = run_here(*common, "--models", tmp_path / "b", "--precisions", "fp32", "--max-diff-fp32", "0")
    assert failed.returncode == 1
    assert "no file passed its checks, and nothing was written" in failed.stderr  # which check fails depends on the CPU
    assert not (tmp_path / "b" / "pets" / "1").exists()
    assert run_here(*common, "--models", tmp_path / "c", "--precisions", "int4").returncode == 2
    absent = run_here(*common, "--models", tmp_path / "c", "--precisions", "fp32", "--require", "int8")
    assert absent.returncode == 1
    assert "--require names int8, which --precisions does not" in absent.stderr
    assert run_here(*common, "--models", tmp_path / "c", "--min-agreement", "2").returncode == 2


def test_a_precision_that_fails_does_not_discard_the_others(fitted: Path, tmp_path: Path) -> None:
    # no graph agrees with the network to the last bit, so fp16 fails with any number of blocks in float32
    common = ("export", "bundle", "--run", fitted, "--name", "pets", "--max-diff-fp16", "0")
    precisions = ("--precisions", "fp32", "fp16")
    finished = run_here(*common, *precisions, "--models", tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert [artifact.file for artifact in open_bundle(tmp_path / "pets/1").manifest.artifacts] == ["model.fp32.onnx"]
    assert "with 1 layer in float32: " in finished.stderr
    assert "fp16 is missing: " in finished.stderr.splitlines()[-1]
    required = run_here(*common, *precisions, "--models", tmp_path, "--require", "fp16")
    assert required.returncode == 1
    assert "pets/2 was written without fp16, which is required" in required.stderr
    unlike = run_here(*common, "--models", tmp_path, "--precisions", "fp32", "fp16", "--max-diff-fp32", "0")
    assert unlike.returncode == 1
    assert "no file passed its checks, and nothing was written" in unlike.stderr
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == ["1", "2"]


def test_layers_that_are_kept_in_float32_are_not_quantized(bundle: Bundle) -> None:
    graph = bundle.read(bundle.artifact("fp32"))
    images = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    ranges = measure_ranges(graph, images)
    sensitivities = measure_int8_sensitivity(graph, ranges, "onnxruntime", images)
    assert list(sensitivities.values()) == sorted(sensitivities.values(), reverse=True)
    kept = list(sensitivities)[:2]
    quantized = onnx.load_from_string(quantize(graph, ranges, "onnxruntime", kept)).graph
    weights = {node.name: node.input[1] for node in quantized.node if node.op_type in ("Conv", "Gemm")}
    floats = {name for name, weight in weights.items() if not weight.endswith("_DequantizeLinear_Output")}
    assert floats == set(kept)


def test_calibration_images_come_from_a_folder_if_one_is_named(fitted: Path, drawings: Path, tmp_path: Path) -> None:
    common = ("export", "bundle", "--run", fitted, "--name", "pets", "--models", tmp_path / "m", *LOOSE)
    few = tmp_path / "few"
    few.mkdir()
    for folder, complaint in ((tmp_path / "absent", "is not a folder"), (few, "there are 0")):
        failed = run_here(*common, "--precisions", "int8", "--calibration", folder)
        assert failed.returncode == 1
        assert complaint in failed.stderr
    shutil.copy(next((drawings / "train/cats").iterdir()), few)
    assert "there are 1:" in run_here(*common, "--precisions", "int8", "--calibration", few).stderr
    assert not (tmp_path / "m").exists()
    old = tmp_path / "old run"
    shutil.copytree(fitted, old, ignore=shutil.ignore_patterns("training.*"))
    missing = run_here("export", "bundle", "--run", old, "--name", "pets", "--models", tmp_path / "m", *ALL)
    assert missing.returncode == 0
    assert "training.jsonl cannot be read" in missing.stderr
    assert [artifact.file for artifact in open_bundle(tmp_path / "m/pets/1").manifest.artifacts] == ["model.fp32.onnx"]


def test_only_int8_needs_sixteen_images_to_calibrate_on(fitted: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(fitted, few)
    lines = (few / "training.jsonl").read_text().splitlines()
    (few / "training.jsonl").write_text("\n".join(lines[:15]))
    precisions = ("--precisions", "fp32", "fp16", "int8")
    finished = run_here("export", "bundle", "--run", few, "--models", tmp_path, "--name", "pets", *precisions, *LOOSE)
    assert finished.returncode == 0, finished.stderr
    assert "int8 is missing: INT8 needs at least 16 images to calibrate on, and there are 15" in finished.stderr
    assert [artifact.file for artifact in open_bundle(tmp_path / "pets/1").manifest.artifacts] == [
        "model.fp32.onnx",
        "model.fp16.onnx",
    ]


def test_calibration_images_are_spread_over_classes_and_always_the_same() -> None:
    images = [
        LabelledImage(Path(f"{label}/{number}.jpg"), label) for label in range(3) for number in range(10 + 20 * label)
    ]
    chosen = choose_images(images, 30)
    assert [sum(image.label == label for image in chosen) for label in range(3)] == [10, 10, 10]
    assert chosen == choose_images(images, 30)
    assert len(choose_images(images[:3], 30)) == 3


def test_an_ensemble_is_one_graph_that_averages_predictions(fitted: Path) -> None:
    one, two = open_run(fitted).load_classifier(), open_run(fitted).load_classifier()
    with torch.no_grad():
        two.head[-1].bias += torch.tensor([1.0, 0.0])
    images = torch.randint(0, 256, (3, 160, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    compute = load_graph(to_onnx(DeployedModel(MeanPredictions([one, two]), 1.0).eval(), 160))
    with torch.inference_mode():
        expected = (torch.softmax(one(images), 1) + torch.softmax(two(images), 1)) / 2
    np.testing.assert_allclose(compute(images.numpy()), expected.numpy(), atol=1e-5)


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(bundle: Bundle) -> None:
    model = graph_of(bundle, "fp32")
    check_listed_operators(model.SerializeToString())
    model.graph.node.append(helper.make_node("Bernoulli", ["images"], ["dice"], name="/body/dice"))
    with pytest.raises(CheckError, match="'/body/dice' is a Bernoulli"):
        check_listed_operators(model.SerializeToString())
    model = graph_of(bundle, "fp32")
    model.graph.node.insert(0, helper.make_node("Shape", ["images"], ["shape"], name="/shape"))
    check_listed_operators(model.SerializeToString())
    model.graph.node.insert(0, helper.make_node("Transpose", ["images"], ["turned"], name="/turn"))
    with pytest.raises(CheckError, match=r"'/turn' \(Transpose\) reads uint8"):
        check_listed_operators(model.SerializeToString())
    model = graph_of(bundle, "fp32")
    model.opset_import[0].version = 26
    with pytest.raises(CheckError, match="opset 26"):
        check_listed_operators(model.SerializeToString())


def test_inspect_lists_this_host_s_engines(bundle: Bundle, tmp_path: Path) -> None:
    empty = run_here("export", "inspect", bundle.folder, "--engines", tmp_path)
    assert "no TensorRT engine" in empty.stdout
    FakeGpu().write_engine(tmp_path, bundle.artifact("fp16").sha256, "fp16", max_batch=4)
    FakeGpu().write_engine(tmp_path, "0" * 64, "fp16", max_batch=4)
    shown = run_here("export", "inspect", bundle.folder, "--engines", tmp_path, "--json")
    (engine,) = json.loads(shown.stdout)["engines"]
    assert engine["gpu"] == "NVIDIA Fake GPU"
