"""Served models in; what the Open Inference Protocol says of them out."""

from collections.abc import Iterable

from serving.inference_inputs import INPUTS, MAX_PICTURES
from serving.inference_outputs import OUTPUTS
from serving.pb.inference import open_inference_pb2 as pb
from serving.repository import ServedModel

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
        inference_count=usage.pictures,
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
