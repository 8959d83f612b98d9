"""The layers that a TensorRT builder made of a graph: their types and the data types that go in and out of them.

A builder logs them if its profiling verbosity is DETAILED, in the words of the engine inspector. So they are known
where an engine is built, also without a GPU; the inspector itself needs one.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

_BYTES = {"Int8": 1, "UInt8": 1, "Bool": 1, "FP8": 1, "Half": 2, "BFloat16": 2, "Float": 4, "Int32": 4, "Int64": 8}
_TENSOR = re.compile(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")
WEIGHTED = ("correlation", "gemm", "convolution", "CaskConvolution", "CaskGemmConvolution", "matrix_multiply")
"""The builder's names of convolutions and matrix products."""


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine."""

    name: str
    kind: str
    """Such as `correlation` (a convolution), `gemm` or `kgen` (generated elementwise code)."""
    inputs: tuple[str, ...]
    """Data types of the activations that it reads, such as `Int8`, without constants."""
    outputs: tuple[str, ...]
    bytes_per_image: int
    """Bytes of activations that it reads and writes for one image."""

    @property
    def is_weighted(self) -> bool:
        """Whether it is a convolution or a matrix product with constant weights."""
        return self.kind in WEIGHTED or (self.kind == "runtime_fusion" and self.name.startswith("__myl_Fc"))


def read_layers(text: str) -> tuple[Layer, ...]:
    """Parse a builder's log of an engine's layers, one on each line; other lines are skipped."""
    return tuple(_read_layer(line) for line in text.splitlines() if line.startswith("Name: ") and "Outputs: [" in line)


def _read_layer(line: str) -> Layer:
    name, _, rest = line.removeprefix("Name: ").partition(", LayerType: ")
    kind, _, rest = rest.partition(", Inputs: ")
    inputs, _, outputs = rest.partition("Outputs: [")
    read, written = _TENSOR.findall(inputs.partition("Constants: [")[0]), _TENSOR.findall(outputs)
    return Layer(
        name,
        kind,
        tuple(kind for _, kind in read),
        tuple(kind for _, kind in written),
        sum(_size(shape) * _BYTES.get(kind, 4) for shape, kind in [*read, *written]),
    )


def _size(shape: str) -> int:
    """Elements of one image: the batch is -1."""
    return prod(int(size) for size in shape.split(",") if size not in ("", "-1"))


def summarize(layers: Sequence[Layer]) -> dict[str, Any]:
    """Facts for a manifest or a sidecar; empty if the builder logged no layers.

    Returns:
        `layers`; `weighted`: numbers of convolutions and matrix products by their types, such as `Half -> Half`;
        `activation_bytes_per_image`.
    """
    if not layers:
        return {}
    weighted = Counter(
        f"{' + '.join(layer.inputs)} -> {' + '.join(layer.outputs)}" for layer in layers if layer.is_weighted
    )
    return {
        "layers": len(layers),
        "weighted": dict(weighted.most_common()),
        "activation_bytes_per_image": sum(layer.bytes_per_image for layer in layers),
    }


def describe(summary: dict[str, Any]) -> str:
    """A summary in one line, for people."""
    if not summary:
        return "the builder logged no layers"
    weighted = ", ".join(f"{count} {types}" for types, count in summary["weighted"].items())
    megabytes = summary["activation_bytes_per_image"] / 1e6
    return f"{summary['layers']} layers; convolutions and matrix products: {weighted}; {megabytes:.1f} MB per image"
