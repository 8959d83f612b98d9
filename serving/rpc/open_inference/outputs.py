"""Served models in; what the Open Inference Protocol says of them out.

Predictions in; the tensors that an Open Inference Protocol request asked for out.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.models.loader import ServedModel
from serving.pb.inference import open_inference_pb2 as pb
from serving.rpc.classification import ClassifySpec, SignedPrediction
from serving.rpc.errors import ApiError, invalid
from serving.rpc.open_inference.inputs import INPUTS, MAX_PICTURES

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
    """The same, as Triton's clients want it."""
    return pb.ModelConfig(
        name=model.manifest.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=MAX_PICTURES,
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
    """How much a version inferred since it was loaded."""
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
    """An output's shape without the pictures; -1 where the request chooses."""
    if not OUTPUTS[output].per_class:
        return []
    return [len(model.manifest.classes)] if output == "probabilities" else [-1]


CLASSIFICATION = "classification"
CLASSIFIED = "probabilities"
"""The output that the classification extension applies to."""
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class _Output:
    datatype: str
    per_class: bool
    """Whether it has a row of values for each picture, or one value."""
    values: Callable[[ClassifySpec, SignedPrediction], list[Any]]
    """Of one picture."""


OUTPUTS = {
    CLASSIFIED: _Output("FP32", True, lambda asked, issued: issued.probabilities_K),
    "labels": _Output("BYTES", True, lambda asked, issued: [_label(asked, k) for k in _top(asked, issued)]),
    "scores": _Output("FP32", True, lambda asked, issued: [issued.probabilities_K[k] for k in _top(asked, issued)]),
    "tokens": _Output("BYTES", False, lambda asked, issued: [issued.token.encode()]),
    "views": _Output("INT32", False, lambda asked, issued: [issued.views]),
}
"""`probabilities` are in the order of the classes; `labels` and `scores` have the most probable first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output of a request, checked."""

    name: str
    classification: int | None
    """So many classes, as texts; None: the output itself."""


def read_wanted(request: pb.ModelInferRequest) -> list[Wanted]:
    """The outputs that a request asks for.

    Raises:
        ApiError: INVALID_ARGUMENT, naming the field that is at fault.
    """
    wanted: list[Wanted] = []
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in OUTPUTS or output.name in {other.name for other in wanted}:
            what = "is asked for twice" if output.name in OUTPUTS else "is not known"
            given = output.name[:_MAX_SHOWN]
            raise _wrong(f"{field}.name", f"output {given!r} {what}; there are {', '.join(OUTPUTS)}")
        classification = None
        for name, parameter in output.parameters.items():
            if name != CLASSIFICATION or output.name != CLASSIFIED:
                message = f"parameter {name[:_MAX_SHOWN]!r} of {output.name} is not known"
                raise _wrong(f"{field}.parameters", f"{message}; {CLASSIFIED} takes {CLASSIFICATION}")
            classification = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or classification < 1:
                raise _wrong(f"{field}.parameters", f"{CLASSIFICATION} must be a whole number from 1 (int64)")
        wanted.append(Wanted(output.name, classification))
    return wanted or [Wanted(name, None) for name in OUTPUTS]


def write_outputs(
    response: pb.ModelInferResponse,
    wanted: Sequence[Wanted],
    asked: ClassifySpec,
    issued: Sequence[SignedPrediction],
    *,
    raw: bool,
) -> None:
    """Add the outputs to a response: in binary form, or as typed contents."""
    for one in wanted:
        if one.classification is None:
            kind = OUTPUTS[one.name]
            datatype, per_class = kind.datatype, kind.per_class
            rows = [kind.values(asked, each) for each in issued]
        else:
            datatype, per_class = "BYTES", True
            rows = [_classified(asked, each, one.classification) for each in issued]
        shape = [len(rows), len(rows[0])] if per_class else [len(rows)]
        tensor = response.outputs.add(name=one.name, datatype=datatype, shape=shape)
        values = [value for row in rows for value in row]
        if raw:
            response.raw_output_contents.append(_to_raw(datatype, values))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(values)
        elif datatype == "FP32":
            tensor.contents.fp32_contents.extend(values)
        else:
            tensor.contents.int_contents.extend(values)


def _top(asked: ClassifySpec, issued: SignedPrediction) -> list[int]:
    return issued.order_K[: asked.top_k]


def _label(asked: ClassifySpec, index: int) -> bytes:
    return asked.model.manifest.classes[index].encode()


def _classified(asked: ClassifySpec, issued: SignedPrediction, count: int) -> list[bytes]:
    """The extension's texts, "value:index:label", most probable first."""
    return [
        f"{issued.probabilities_K[index]:f}:{index}:".encode() + _label(asked, index)
        for index in issued.order_K[:count]
    ]


def _to_raw(datatype: str, values: list[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, "<f4" if datatype == "FP32" else "<i4").tobytes()
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def _wrong(field: str, message: str) -> ApiError:
    return invalid("TENSOR_INVALID", message, field)
