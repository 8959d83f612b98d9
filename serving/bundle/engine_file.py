"""Description of a compiled engine in a bundle: a TensorRT for RTX engine, which runs on several GPU models."""

from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """One engine, built from one of the bundle's ONNX files on any host, and not run there."""

    file: str
    """File name inside the bundle's folder, such as `model.int8.rtx.engine`."""
    precision: Precision
    onnx_sha256: str
    """Hash of the ONNX file that it was built from."""
    sha256: str
    bytes: int
    release: str
    """Version of TensorRT for RTX; another release does not load the engine."""
    compute_capabilities: tuple[str, ...]
    """The GPUs that it was built for, such as 8.6; one for 12.0 runs on newer GPUs too."""
    min_batch: int
    opt_batch: int
    max_batch: int
    build: dict[str, Any] = field(default_factory=dict)
    """For information: `seconds`, and a summary of the `layers` that the builder made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute_capabilities", tuple(map(str, self.compute_capabilities)))  # JSON has a list
