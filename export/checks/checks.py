"""What an exported graph must keep of the trained network, and the error when it does not."""

from dataclasses import dataclass

from serving.bundle.manifest import Precision


class CheckError(RuntimeError):
    """A graph that does not do what was trained; the message says what differs, where and by how much."""


class ParityError(CheckError):
    """A graph of the right form that loses too much; leaving more of it in float may help."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far each precision may be from the trained network."""

    max_diff_fp32: float = 1e-4
    """fp32: largest difference of a probability."""
    max_diff_fp16: float = 5e-3
    """fp16: largest difference of a probability."""
    min_agreement: float = 0.995
    """INT8: smallest part of the validation photos that are given the same class; one may always differ."""
    max_accuracy_loss: float = 0.003
    """INT8: largest loss of accuracy on the validation photos; 0.003 is 0.3 points. One photo may always be lost."""

    def __post_init__(self) -> None:
        for name, high in (("max_diff_fp32", 1), ("max_diff_fp16", 1), ("min_agreement", 1), ("max_accuracy_loss", 1)):
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and {high}")

    def max_diff(self, precision: Precision) -> float | None:
        """Largest difference of a probability; None for INT8, which is judged by its answers."""
        return {"fp32": self.max_diff_fp32, "fp16": self.max_diff_fp16}.get(precision)
