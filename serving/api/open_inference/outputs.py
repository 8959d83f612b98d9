"""The outputs of the Open Inference Protocol: their description for each model, and their tensors."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.api.open_inference.inputs import INPUTS, MAX_IMAGES, MAX_SHOWN, invalid_tensor
from serving.api.predictions import ClassifySpec, SignedPrediction
from serving.models.loader import ServedModel
from serving.pb.inference import open_inference_pb2 as pb

PLATFORM = "pawserve"
_DATA_TYPES = {
    "BYTES": pb.DataType.TYPE_STRING,
    "UINT8": pb.DataType.TYPE_UINT8,
    "FP32": pb.DataType.TYPE_FP32,
    "INT32": pb.DataType.TYPE_INT32,
}


def to_metadata(model: ServedModel, versions: Iterable[int]) -> pb.ModelMetadataResponse:
    """A model's inputs and outputs; `versions` are those that are served."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=model.manifest.name,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in INPUTS.items()],
        outputs=[
            tensor(name=name, datatype=output.datatype, shape=[-1, *_dims(model, name)])
            for name, output in OUTPUTS.items()
        ],
    )


def to_config(model: ServedModel) -> pb.ModelConfig:
    """The same, in the form that Triton's clients need."""
    return pb.ModelConfig(
        name=model.manifest.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=MAX_IMAGES,
        input=[
            pb.ModelInput(name=name, data_type=_DATA_TYPES[datatype], dims=shape[1:] or [1], optional=True)
            for name, (datatype, shape) in INPUTS.items()
        ],
        output=[
            pb.ModelOutput(name=name, data_type=_DATA_TYPES[output.datatype], dims=_dims(model, name) or [1])
            for name, output in OUTPUTS.items()
        ],
    )


def to_statistics(model: ServedModel) -> pb.ModelStatistics:
    """The work of a version since it was loaded."""
    usage = model.classifier.usage
    return pb.ModelStatistics(
        name=model.manifest.name,
        version=str(model.manifest.version),
        last_inference=usage.last_ms,
        inference_count=usage.images,
        execution_count=usage.engine_calls,
        inference_stats=pb.InferStatistics(
            success=pb.StatisticDuration(count=usage.answered, ns=usage.answered_ns),
            fail=pb.StatisticDuration(count=usage.failed, ns=usage.failed_ns),
        ),
    )


def _dims(model: ServedModel, output: str) -> list[int]:
    """An output's shape without the axis of images; -1 where the request chooses."""
    if not OUTPUTS[output].per_class:
        return []
    return [len(model.manifest.classes)] if output == "probabilities" else [-1]


CLASSIFICATION = "classification"
CLASSIFIED = "probabilities"
"""The output that the classification extension applies to."""


@dataclass(frozen=True, slots=True)
class _Output:
    datatype: str
    per_class: bool
    """Whether each image has a value per class, or one value."""
    values: Callable[[ClassifySpec, SignedPrediction], list[Any]]
    """The values of one image."""


def _labels(spec: ClassifySpec, signed: SignedPrediction) -> list[bytes]:
    classes = spec.model.manifest.classes
    return [classes[index].encode() for index in signed.ranking_K[: spec.top_k]]


def _scores(spec: ClassifySpec, signed: SignedPrediction) -> list[float]:
    return [signed.probabilities_K[index] for index in signed.ranking_K[: spec.top_k]]


OUTPUTS = {
    CLASSIFIED: _Output("FP32", True, lambda spec, signed: signed.probabilities_K),
    "labels": _Output("BYTES", True, _labels),
    "scores": _Output("FP32", True, _scores),
    "tokens": _Output("BYTES", False, lambda spec, signed: [signed.token.encode()]),
    "views": _Output("INT32", False, lambda spec, signed: [signed.views]),
}
"""`probabilities` are in the order of the classes; `labels` and `scores` begin with the most probable class."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output of a request, checked."""

    name: str
    classification: int | None
    """Number of classes in the text form of the classification extension; None: the tensor itself."""


def parse_outputs(request: pb.ModelInferRequest) -> list[RequestedOutput]:
    """Read which outputs a request asks for; all of them if it names none.

    Raises:
        ApiError: INVALID_ARGUMENT, naming the invalid field.
    """
    requested: list[RequestedOutput] = []
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in OUTPUTS or output.name in {other.name for other in requested}:
            problem = "is requested twice" if output.name in OUTPUTS else "is not known"
            given = output.name[:MAX_SHOWN]
            raise invalid_tensor(f"{field}.name", f"output {given!r} {problem}; the outputs are {', '.join(OUTPUTS)}")
        classification = None
        for name, parameter in output.parameters.items():
            if name != CLASSIFICATION or output.name != CLASSIFIED:
                message = f"parameter {name[:MAX_SHOWN]!r} of {output.name} is not known"
                raise invalid_tensor(f"{field}.parameters", f"{message}; {CLASSIFIED} takes {CLASSIFICATION}")
            classification = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or classification < 1:
                raise invalid_tensor(f"{field}.parameters", f"{CLASSIFICATION} must be an int64_param of at least 1")
        requested.append(RequestedOutput(output.name, classification))
    return requested or [RequestedOutput(name, None) for name in OUTPUTS]


def write_outputs(
    response: pb.ModelInferResponse,
    outputs: Sequence[RequestedOutput],
    spec: ClassifySpec,
    signed: Sequence[SignedPrediction],
    *,
    raw: bool,
) -> None:
    """Add the outputs to a response, in binary form or as typed contents."""
    for output in outputs:
        if output.classification is None:
            described = OUTPUTS[output.name]
            datatype, per_class = described.datatype, described.per_class
            rows = [described.values(spec, each) for each in signed]
        else:
            datatype, per_class = "BYTES", True
            rows = [_to_texts(spec, each, output.classification) for each in signed]
        shape = [len(rows), len(rows[0])] if per_class else [len(rows)]
        tensor = response.outputs.add(name=output.name, datatype=datatype, shape=shape)
        values = [value for row in rows for value in row]
        if raw:
            response.raw_output_contents.append(_to_raw(datatype, values))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(values)
        elif datatype == "FP32":
            tensor.contents.fp32_contents.extend(values)
        else:
            tensor.contents.int_contents.extend(values)


def _to_texts(spec: ClassifySpec, signed: SignedPrediction, count: int) -> list[bytes]:
    """The texts of the classification extension, "value:index:label", most probable class first."""
    classes, probabilities_K = spec.model.manifest.classes, signed.probabilities_K
    return [f"{probabilities_K[index]:f}:{index}:{classes[index]}".encode() for index in signed.ranking_K[:count]]


def _to_raw(datatype: str, values: list[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, "<f4" if datatype == "FP32" else "<i4").tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
