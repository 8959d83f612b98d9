"""Engines that are really built: TensorRT for RTX needs no GPU for that. Nothing here runs an engine."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.checks.checks import CheckError
from export.checks.verify import check_operators
from export.engine import build_and_check
from export.engine_layers import Layer, read_layers, summarize
from export.tensorrt_plan import BuiltPlan, PlanOptions, build_plan
from serving.bundle.manifest import Bundle, Precision
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary
from serving.engine.tensorrt_rtx import RTX, default_flavor
from tests.support.commands import run_here
from tests.support.exported import LITE0, graph_of, write_exported_bundle
from tests.support.waiting import LIMIT_S

pytest.importorskip("tensorrt_rtx_bindings")

OPTIONS = PlanOptions(min_batch=1, opt_batch=4, max_batch=8)
SMALL = "test_resnet"
TARGETS = ("fp32", "fp16", "int8-trt")
NETWORKS = (
    (LITE0, 64),
    ("resnet34", 64),
    ("mobilenetv3_small_100", 64),
    ("convnext_atto", 64),
    ("efficientnet_b0", 64),  # squeeze and excitation, SiLU
    ("pvt_v2_b0", 64),  # a vision transformer that gives a feature map
)


def built(graph: bytes, crop: int, precision: Precision = "fp32", options: PlanOptions = OPTIONS) -> BuiltPlan:
    return build_plan(graph, crop, precision, options, RTX)


def weighted(plan: BuiltPlan) -> list[Layer]:
    return [layer for layer in plan.layers if layer.is_weighted]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_exported_bundle(tmp_path_factory.mktemp("models"), SMALL, 64, *TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("arch", "crop"), NETWORKS)
def test_every_exported_precision_is_built(arch: str, crop: int, target: str) -> None:
    precision: Precision = "int8" if target == "int8-trt" else target  # type: ignore[assignment]
    graph = graph_of(arch, crop, target)
    plan = built(graph, crop, precision)
    assert len(plan.plan) > 100_000
    kinds = {"fp32": {"Float"}, "fp16": {"Half", "Float"}, "int8-trt": {"Int8", "Half", "Float"}}[target]
    layers = weighted(plan)
    assert layers
    if arch in (LITE0, "resnet34"):
        operators = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)
        assert len(layers) == operators["Conv"] + operators["Gemm"]
    assert {kind for layer in layers for kind in (*layer.inputs, *layer.outputs)} <= kinds
    if target != "fp32":
        assert sum("Half" in layer.outputs for layer in layers) > len(layers) / 2
    if target == "int8-trt":
        assert sum(layer.inputs[0] == "Int8" for layer in layers) > len(layers) / 2


@pytest.mark.slow
def test_int8_reads_bytes_and_writes_half_with_bias_activation_and_skip_branch_in_the_convolution() -> None:
    plan = built(graph_of("resnet34", 64, "int8-trt"), 64, "int8")
    convolutions = [layer for layer in plan.layers if layer.kind == "correlation"]
    assert len(convolutions) == 36
    assert {layer.inputs[0] for layer in convolutions} == {"Int8"}
    assert {layer.outputs for layer in convolutions} == {("Half",)}
    assert sum(layer.inputs[1:] == ("Half",) for layer in convolutions) == 16  # one for each residual addition


@pytest.mark.slow
def test_int8_leaves_depthwise_convolutions_in_half() -> None:
    plan = built(graph_of(LITE0, 64, "int8-trt"), 64, "int8")
    types = Counter((layer.inputs[0], layer.outputs) for layer in plan.layers if layer.kind == "correlation")
    assert types == {("Int8", ("Half",)): 33, ("Half", ("Half",)): 16}


def test_an_engine_is_built_for_several_gpus_and_kept(bundle: Bundle, tmp_path: Path) -> None:
    assert default_flavor() == "rtx"
    result = build_and_check(bundle, "fp16", OPTIONS, tmp_path, None, RTX)
    engine = result["engine"]
    assert (engine["flavor"], engine["gpu"], engine["check"]) == ("rtx", "", "not run")
    assert engine["compute_capabilities"] == ("8.0", "8.6", "8.9", "12.0")
    assert engine["layers"]["weighted"]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    plan = folder / "engine.plan"
    before = plan.stat().st_mtime_ns
    build_and_check(bundle, "fp16", OPTIONS, tmp_path, None, RTX)
    assert plan.stat().st_mtime_ns == before
    plan.write_bytes(b"damaged")
    again = build_and_check(
        bundle, "fp16", OPTIONS, tmp_path, None, RTX
    )  # may differ from the first by a few kilobytes
    assert plan.stat().st_size == again["engine"]["plan_bytes"] > 100_000


def test_the_command_builds_by_default_without_a_gpu(bundle: Bundle, tmp_path: Path) -> None:
    finished = run_here(
        *("export", "engine", bundle.folder, "--precision", "int8", "--engines", tmp_path, "--json"),
        *("--compute-capability", "8.6", "8.9"),
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["engine"]["compute_capabilities"] == ["8.6", "8.9"]
    assert result["parity"] is None
    assert "not run here" in finished.stderr
    assert "convolutions and matrix products: " in finished.stderr


def test_more_gpus_are_other_engines(bundle: Bundle) -> None:
    graph = bundle.read(bundle.artifact("fp16"))
    one, all_of_them = (
        built(graph, 64, "fp16", PlanOptions(max_batch=8, opt_batch=4, compute_capability=capabilities)).plan
        for capabilities in (("8.6",), ("8.0", "8.6", "8.9", "12.0", "12.1"))
    )
    assert one != all_of_them


def test_turing_has_no_float32_matrix_products_and_the_error_names_the_node(bundle: Bundle) -> None:
    with pytest.raises(EngineBuildError, match=r"node_\w*(Gemm|addmm|linear)\w*'? for Turing"):
        built(bundle.read(bundle.artifact("fp32")), 64, options=PlanOptions(compute_capability=("7.5",)))


@pytest.mark.parametrize("wrong", [(), ("9.0",), ("8.6", "8.6"), ("8",)])
def test_compute_capabilities_out_of_range_are_rejected(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"one or several of 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"):
        PlanOptions(compute_capability=wrong)


def bad_graph(operator: str, *, domain: str = "") -> bytes:
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], "node_cast", to=TensorProto.FLOAT),
        helper.make_node(operator, ["x"], ["y"], "node_bad", domain=domain),
        helper.make_node("ReduceMean", ["y", "axes"], ["probabilities"], "node_mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [onnx.numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return model


@pytest.mark.parametrize(("operator", "domain"), [("Det", ""), ("Invented", "com.example")])
def test_a_node_that_the_parser_does_not_read_is_named_with_its_operator(operator: str, domain: str) -> None:
    with pytest.raises(EngineBuildError, match=rf"TensorRT for RTX cannot read .*node 'node_bad' \({operator}\): "):
        built(bad_graph(operator, domain=domain), 8)


def test_the_export_s_check_asks_the_real_parser_or_a_list_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_operators(graph_of(SMALL, 64, "int8-trt"))
    with pytest.raises(CheckError, match=r"TensorRT cannot read the graph: node 'node_bad' \(Det\): "):
        check_operators(bad_graph("Det"))
    monkeypatch.setattr(TensorRTLibrary, "is_installed", lambda library: False)
    check_operators(graph_of(SMALL, 64, "int8-trt"))
    with pytest.raises(CheckError, match="'node_bad' is a Det, which TensorRT does not have"):
        check_operators(bad_graph("Det"))


def test_a_file_that_is_no_graph_is_an_error() -> None:
    with pytest.raises(EngineBuildError, match="TensorRT for RTX cannot read the ONNX file"):
        built(b"not an ONNX file", 8)


def test_batch_sizes_that_the_graph_does_not_have_are_an_error(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.read(bundle.artifact("fp32")))
    with pytest.raises(EngineBuildError, match="images"):
        built(model.SerializeToString(), 96)  # its input has 64 pixels


def test_ctrl_c_cancels_a_real_build_and_leaves_nothing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    bundle = write_exported_bundle(models, LITE0, 64, "fp32")
    program = (
        "import signal, sys, export.tensorrt_plan as plan\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "make = plan.make_monitor\n"
        "def announce(trt, on_step, cancelled):\n"
        "    def step(done, total):\n"
        "        print('step', flush=True)\n"
        "        cancelled.wait(60)\n"  # so that the build is still in progress when Ctrl-C arrives
        "        on_step(done, total)\n"
        "    return make(trt, step, cancelled)\n"
        "plan.make_monitor = announce\n"
        "from export.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "engine", str(bundle.folder), "--precision", "fp32"]
    with subprocess.Popen(
        [*command, "--engines", str(tmp_path / "engines")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, errors
    assert [path for path in (tmp_path / "engines").rglob("*") if path.is_file()] == []


def test_layers_are_read_from_the_builders_words() -> None:
    text = (
        "Layers:\n"
        "Name: a, b_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,2,2], Strides: [1], "
        "Datatype: Int8, Format: f }], Constants: [ { Name: w, Dimensions: [8,4,1,1], Datatype: Int8, Format: f }], "
        "Outputs: [ { Name: y, Dimensions: [-1,8,2,2], Datatype: Half, Format: f }], TacticName: t\n"
        "Bindings:\n"
    )
    (layer,) = read_layers(text)
    assert layer == Layer("a, b_myl0_1", "correlation", ("Int8",), ("Half",), 16 + 2 * 32)
    assert summarize([layer])["weighted"] == {"Int8 -> Half": 1}
    assert summarize([]) == {}
