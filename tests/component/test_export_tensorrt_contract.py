"""The TensorRT code against the real bindings of TensorRT 11.4 and of TensorRT for RTX, and the CUDA code against
cuda-bindings: no GPU needed.

The bindings need nine symbols of three libraries to import; stub libraries that are built here have them.
"""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

TENSORRT_FILES = (
    *("export/tensorrt_plan.py", "export/checks/tensorrt_parser.py"),
    *("serving/engine/tensorrt.py", "serving/engine/tensorrt_library.py"),
)
RTX_FILES = ("serving/engine/tensorrt_rtx.py",)
CUDA_FILES = ("serving/engine/cuda.py", "serving/engine/tensorrt.py")

STUBS = {
    "libnvinfer.so.11": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    ),
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stub libraries, on which the real bindings import."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or find_spec("tensorrt_bindings") is None:
        pytest.skip("needs a C compiler and tensorrt-cu13-bindings 11.4")
    folder = tmp_path_factory.mktemp("stubs")
    for library, symbols in STUBS.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True, timeout=LIMIT_S)
    return folder


def walk(libraries: Path, *files: Path, module: str = "tensorrt_bindings") -> dict[str, Any]:
    """What the walker finds in files, run where the bindings import."""
    finished = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/tensorrt_api.py"), module, *map(str, files)],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def test_every_name_keyword_and_return_kind_that_is_used_is_that_of_tensorrt_11_4(libraries: Path) -> None:
    found = walk(libraries, *(ROOT / file for file in TENSORRT_FILES))
    assert found["version"].startswith("11.4.")
    assert {problem for problems in found["problems"].values() for problem in problems} == set()
    relied_on = {
        "OnnxParser.parse_from_file": ["bool"],
        "IBuilderConfig.add_optimization_profile": ["int"],
        "IBuilderConfig.create_timing_cache": ["ITimingCache"],
        "IBuilderConfig.set_timing_cache": ["bool"],
        "IOptimizationProfile.set_shape": ["None"],
        "Builder.build_serialized_network": ["IHostMemory"],
        "ITimingCache.serialize": ["IHostMemory"],
        "ParserError.node_name": ["str"],
        "ParserError.node_operator": ["str"],
        "ParserError.desc": ["str"],
        "Runtime.deserialize_cuda_engine": ["ICudaEngine"],
        "ICudaEngine.create_execution_context": ["IExecutionContext"],
        "ICudaEngine.get_tensor_profile_shape": ["list[Dims]"],
        "IExecutionContext.set_input_shape": ["bool"],
        "IExecutionContext.set_tensor_address": ["bool"],
        "IExecutionContext.set_device_memory": ["None"],
        "IExecutionContext.execute_async_v3": ["bool"],
    }
    assert {call: found["returns"].get(call) for call in relied_on} == relied_on


def test_every_name_that_is_used_is_one_of_tensorrt_for_rtx_too() -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    shared = [file for file in TENSORRT_FILES if file != "serving/engine/tensorrt_library.py"]
    found = walk(Path(), *(ROOT / file for file in (*shared, *RTX_FILES)), module="tensorrt_rtx_bindings")
    assert found["version"].startswith("1.7.")
    assert {problem for problems in found["problems"].values() for problem in problems} == set()
    relied_on = {
        "IRuntimeCache.deserialize": ["bool"],
        "IRuntimeConfig.set_runtime_cache": ["bool"],
        "IBuilderConfig.set_compute_capability": ["bool"],
        "ICudaEngine.create_execution_context": ["IExecutionContext"],
        "IExecutionContext.is_stream_capturable": ["bool"],
    }
    assert {call: found["returns"].get(call) for call in relied_on} == relied_on


@pytest.mark.parametrize(
    ("correct", "misspelt"),
    [
        ("create_runtime_cache(", "create_kernel_cache("),
        ("num_compute_capabilities", "nb_compute_capabilities"),
        ("CudaGraphStrategy.DISABLED", "CudaGraphStrategy.NONE"),
        ("REQUIRE_USER_ALLOCATION", "USER_ALLOCATION"),
        ("set_compute_capability(target, index)", "set_compute_capability(target)"),
    ],
)
def test_a_misspelt_name_of_tensorrt_for_rtx_is_found(tmp_path: Path, correct: str, misspelt: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    source = (ROOT / RTX_FILES[0]).read_text(encoding="utf-8")
    assert correct in source
    (tmp_path / "changed.py").write_text(source.replace(correct, misspelt), encoding="utf-8")
    found = walk(Path(), tmp_path / "changed.py", module="tensorrt_rtx_bindings")
    assert found["problems"][str(tmp_path / "changed.py")] != []


@pytest.mark.parametrize(
    ("file", "correct", "misspelt"),
    [
        ("export/tensorrt_plan.py", "set_memory_pool_limit(", "set_memory_pol_limit("),
        ("export/tensorrt_plan.py", "MemoryPoolType.WORKSPACE", "MemoryPoolType.WORKSPACES"),
        ("export/tensorrt_plan.py", "BuilderFlag.TF32", "BuilderFlag.FP16"),  # gone in 11
        ("export/checks/tensorrt_parser.py", "error.node_operator()", "error.operator()"),
        ("serving/engine/tensorrt_library.py", "set_timing_cache(cache, False)", "set_timing_cache(cache)"),
        ("export/tensorrt_plan.py", "create_network()", "create_network(explicit_batch=True)"),
        ("export/tensorrt_plan.py", "def phase_finish(self, phase_name", "def phase_finished(self, phase_name"),
        ("export/tensorrt_plan.py", "config.builder_optimization_level", "config.max_workspace_size"),
        ("serving/engine/tensorrt.py", "execute_async_v3(", "execute_async_v2("),
        ("serving/engine/tensorrt.py", "device_memory_size_v2", "device_memory_size"),
        ("serving/engine/tensorrt_library.py", "Severity.ERROR", "Severity.ERRORS"),
        ("serving/engine/tensorrt_library.py", "Strategy.USER_MANAGED", "Strategy.MANUAL"),
        ("serving/engine/tensorrt.py", ".set_device_memory(", ".set_scratch_memory("),
    ],
)
def test_a_misspelt_or_removed_name_is_found(
    libraries: Path, tmp_path: Path, file: str, correct: str, misspelt: str
) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert correct in source
    (tmp_path / "changed.py").write_text(source.replace(correct, misspelt), encoding="utf-8")
    assert walk(libraries, tmp_path / "changed.py")["problems"][str(tmp_path / "changed.py")] != []


def cuda_problems(source: str) -> list[str]:
    """Uses of the CUDA runtime that cuda-bindings does not know: names, numbers of arguments and of results."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    problems = []
    tree = ast.parse(source)
    uses = {
        node: member
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (member := _member(node)) is not None
    }
    for member in uses.values():
        found = runtime
        for name in member.split("."):
            found = getattr(found, name, None)
        if found is None:
            problems.append(f"no {member}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        called = node.value
        if not (isinstance(called.func, ast.Name) and called.func.id == "call" and called.args[0] in uses):
            continue
        function = getattr(runtime, uses[called.args[0]], None)
        if function is None:
            continue
        arguments = [part for given in called.args[1:] for part in _spread(given)]
        if len(arguments) != len(inspect.signature(function).parameters):
            problems.append(f"{function.__name__} does not take {len(arguments)} arguments")
        results = re.split(r"\n\s*(?:See Also|Notes)\n", function.__doc__.split("Returns\n")[-1])[0]
        count = len(re.findall(r"^\s*\w+ : ", results, re.MULTILINE))
        if isinstance(node, ast.Expr) and count or isinstance(node, ast.Assign) and count != _targets(node):
            problems.append(f"{function.__name__} gives {count} results")
    return problems


def _member(node: ast.Attribute) -> str | None:
    """`cudaMemcpyKind.x` of `cudart.cudaMemcpyKind.x`, `self._cudart.cudaMemcpyKind.x` or `load_cudart().…`."""
    names: list[str] = []
    inner: ast.AST = node
    while isinstance(inner, ast.Attribute) and inner.attr != "_cudart":
        names.insert(0, inner.attr)
        inner = inner.value
    is_module = (
        (isinstance(inner, ast.Attribute) and inner.attr == "_cudart")
        or (isinstance(inner, ast.Name) and inner.id == "cudart")
        or (isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "load_cudart")
    )
    return ".".join(names) if names and is_module else None


def _spread(node: ast.AST) -> list[ast.AST]:
    return list(node.value.elts) if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple) else [node]


def _targets(node: ast.Assign) -> int:
    target = node.targets[0]
    return len(target.elts) if isinstance(target, ast.Tuple) else 1


def test_every_call_of_the_cuda_runtime_is_one_of_cuda_bindings() -> None:
    for file in CUDA_FILES:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert source.count("cuda") > 5
        assert cuda_problems(source) == [], file


@pytest.mark.parametrize(
    ("file", "correct", "misspelt"),
    [
        ("serving/engine/tensorrt.py", "cudaMemcpyAsync", "cudaMemcopyAsync"),
        ("serving/engine/tensorrt.py", "cudaMemcpyHostToDevice", "cudaMemcpyHostToGpu"),
        ("serving/engine/tensorrt.py", "cudaStreamNonBlocking", "cudaStreamNonBlock"),
        ("serving/engine/tensorrt.py", "to_device, self._stream)", "to_device)"),
        (
            "serving/engine/tensorrt.py",
            "call(cudart.cudaStreamSynchronize, self._stream)",
            "free = call(cudart.cudaStreamSynchronize, self._stream)",
        ),
        ("serving/engine/tensorrt.py", "self._stream = call(", "self._stream, other = call("),
        ("serving/engine/cuda.py", "cudaStreamCaptureModeThreadLocal", "cudaStreamCaptureThreadLocal"),
        (
            "serving/engine/cuda.py",
            "graph = call(cudart.cudaStreamEndCapture, stream)",
            "call(cudart.cudaStreamEndCapture, stream)",
        ),
        ("serving/engine/cuda.py", "call(cudart.cudaGraphDestroy, graph)", "call(cudart.cudaGraphDestroy, graph, 0)"),
        (
            "serving/engine/cuda.py",
            "cudaGraphLaunch, self._executable, self._stream",
            "cudaGraphLaunch, self._executable",
        ),
    ],
)
def test_a_misspelt_cuda_call_is_found(file: str, correct: str, misspelt: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert correct in source
    assert cuda_problems(source.replace(correct, misspelt)) != []
