"""A Triton model repository: what Triton would read of it, parsed by Triton's own client library."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from export.triton import TritonOptions, run
from serving.bundle.manifest import MANIFEST, Artifact, Bundle, BundleError, Manifest
from serving.engine.cuda import CudaError
from serving.image.preprocess import Preprocess
from tests.support.fake_gpu import FakeGpu, sha256
from tests.support.waiting import LIMIT_S

# tritonclient registers the same protobuf symbols as the server's stubs, so it runs in a process of its own
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(open(sys.argv[1]).read(), model_config_pb2.ModelConfig())
print(json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle whose files are no graphs: Triton's repository takes them as they are."""
    folder = tmp_path / "models" / "pets" / "3"
    folder.mkdir(parents=True)
    artifacts = []
    for name, precision, runtime in (
        ("fp32", "fp32", "onnxruntime"),
        ("int8", "int8", "onnxruntime"),
        ("int8-trt", "int8", "tensorrt"),
    ):
        content = name.encode()
        (folder / f"model.{name}.onnx").write_bytes(content)
        artifacts.append(
            Artifact(
                file=f"model.{name}.onnx",
                precision=precision,
                runtime=runtime,
                sha256=sha256(content),
                bytes=len(content),
            )
        )
    manifest = Manifest(
        name="pets",
        version=3,
        created="2026-01-01T00:00:00+00:00",
        arch="resnet34",
        classes=("cats", "big\ndogs", "Füchse"),
        preprocess=Preprocess(),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        temperature=1.0,
        artifacts=tuple(artifacts),
        metrics={},
        fingerprints={},
        versions={},
    )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def write(bundle: Bundle, tmp_path: Path, **options: Any) -> Path:
    """Write the repository of a bundle in `tmp_path / "out"`."""
    places = {"bundle": bundle.folder, "out": tmp_path / "out", "engines": tmp_path / "engines"}
    run(TritonOptions(**{**places, **options}))
    return tmp_path / "out" / "pets"


def parse(config: Path) -> dict[str, object]:
    if find_spec("tritonclient") is None:
        pytest.skip("needs tritonclient")
    finished = subprocess.run(
        [sys.executable, "-c", PARSE, str(config)], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert finished.returncode == 0, finished.stderr
    result: dict[str, object] = json.loads(finished.stdout)
    return result


def test_triton_s_own_schema_reads_the_configuration(bundle: Bundle, tmp_path: Path) -> None:
    folder = write(bundle, tmp_path, instances=2, max_batch=8, max_queue_delay_us=500)
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in folder.rglob("*") if path.is_file()) == [
        "pets/3/model.onnx",
        "pets/config.pbtxt",
        "pets/labels.txt",
    ]
    assert (folder / "3" / "model.onnx").read_bytes() == b"int8"
    assert (folder / "labels.txt").read_text(encoding="utf-8") == "cats\nbig dogs\nFüchse\n"
    assert parse(folder / "config.pbtxt") == {
        "name": "pets",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": ["224", "224", "3"]}],
        "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": ["3"], "label_filename": "labels.txt"}],
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": "500"},
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
        "parameters": {"temperatures": {"string_value": "1: 1"}},
        "version_policy": {"specific": {"versions": ["3"]}},
    }


def test_the_tensorrt_backend_takes_this_host_s_engine(bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.write_engine(tmp_path / "engines", bundle.artifact("int8", "tensorrt").sha256, "int8", max_batch=16)
    folder = write(bundle, tmp_path, backend="tensorrt", device="gpu", max_batch=16)
    assert (folder / "3" / "model.plan").read_bytes() == fake_gpu.plan(16)
    config = parse(folder / "config.pbtxt")
    assert config["platform"] == "tensorrt_plan"
    assert "backend" not in config
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    with pytest.raises(ValueError, match="built for at most 16"):
        write(bundle, tmp_path, out=tmp_path / "other", backend="tensorrt", device="gpu", max_batch=32)


def test_without_a_gpu_the_tensorrt_backend_fails_and_nothing_is_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(CudaError, match="driver|no NVIDIA GPU|cuda-python"):
        write(bundle, tmp_path, backend="tensorrt", precision="fp32", device="gpu")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten_and_a_damaged_file_not_copied(bundle: Bundle, tmp_path: Path) -> None:
    write(bundle, tmp_path)
    with pytest.raises(ValueError, match="is not overwritten"):
        write(bundle, tmp_path)
    (bundle.folder / "model.fp32.onnx").write_bytes(b"fp23")
    with pytest.raises(BundleError, match="changed after the export"):
        write(bundle, tmp_path, out=tmp_path / "other", precision="fp32")
    with pytest.raises(BundleError, match="has no fp16 artifact"):
        write(bundle, tmp_path, out=tmp_path / "other", precision="fp16")
    assert not (tmp_path / "other" / "pets").exists()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"backend": "tensorrt"}, "GPUs only"),
        ({"instances": 0}, "instances is 0"),
        ({"max_batch": 5000}, "max_batch is 5000"),
        ({"max_queue_delay_us": -1}, "max_queue_delay_us is -1"),
    ],
)
def test_options_out_of_range_are_rejected(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TritonOptions(bundle=Path("models/pets/3"), out=Path("out"), **wrong)
