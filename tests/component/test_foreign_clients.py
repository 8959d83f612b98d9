"""Clients that do not stand on grpcio, and know no more than a new caller does: `buf curl`, with and without files."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc
from PIL import Image

from tests.support.commands import ROOT
from tests.support.images import encoded
from tests.support.waiting import LIMIT_S

RED = base64.b64encode(encoded(Image.new("RGB", (60, 50), "red"), "JPEG")).decode()
SCHEMAS = {
    "reflection 1": ("--reflect-protocol", "grpc-v1"),
    "reflection 1alpha": ("--reflect-protocol", "grpc-v1alpha"),
    "files": ("--schema", str(ROOT / "proto")),
}


def curl(address: str, *arguments: str, method: str = "", body: object = None) -> subprocess.CompletedProcess[str]:
    buf = Path(sys.executable).with_name("buf")
    data = () if body is None else ("--data", "@-")
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments, *data]
    return subprocess.run(
        [*command, f"http://{address}/{method}"],
        input=None if body is None else json.dumps(body),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_generic_client_gets_results_and_errors(address: str, schema: tuple[str, str]) -> None:
    body = {"images": [{"content": RED}, {"content": "AAAA"}]}
    finished = curl(address, *schema, method="pawserve.v1.Classifier/Classify", body=body)
    assert finished.returncode == 0, finished.stderr
    good, bad = json.loads(finished.stdout)["results"]
    assert good["prediction"]["classes"][0]["label"] == "red"
    assert {detail.get("reason") for detail in bad["error"]["details"]} == {"NOT_AN_IMAGE", None}
    rejected = curl(address, *schema, method="pawserve.v1.Classifier/Classify", body={})
    assert json.loads(rejected.stderr)["code"] == "invalid_argument"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_all_services_and_itself(address: str, version: str) -> None:
    methods = curl(address, "--reflect-protocol", f"grpc-{version}", "--list-methods").stdout.split()
    assert {method.partition("/")[0] for method in methods} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "pawserve.v1.Classifier",
    }


def test_the_messages_that_come_with_the_protocol_files_are_those_of_googleapis(tmp_path: Path) -> None:
    out = tmp_path / "files.binpb"
    files = [str(file.relative_to(ROOT / "proto")) for file in (ROOT / "proto").rglob("*.proto")]
    own = Path(protoc.__file__).parent / "_proto"  # google.protobuf, which comes with every compiler
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{own}", f"-o{out}", "--include_imports", *files]) == 0
    ours = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    for theirs in (status_pb2, error_details_pb2):
        (file,) = (file for file in ours.file if file.name == theirs.DESCRIPTOR.name)
        whole = descriptor_pb2.FileDescriptorProto()
        theirs.DESCRIPTOR.CopyToProto(whole)
        known = {message.name: fields(message) for message in whole.message_type}
        assert file.message_type
        for message in file.message_type:
            assert fields(message) == known[message.name]


def fields(message: Any) -> dict[str, Any]:
    """Names, numbers and types of its fields, and of those of the messages within."""
    own = {field.name: (field.number, field.label, field.type, field.type_name) for field in message.field}
    return {**own, **{nested.name: fields(nested) for nested in message.nested_type}}
