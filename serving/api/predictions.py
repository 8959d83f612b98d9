"""How images are to be classified, and their signed predictions: what the use case and the protocols exchange."""

from dataclasses import dataclass

from serving.models.loader import ServedModel
from serving.tokens.tokens import PredictionRecord


@dataclass(frozen=True, slots=True)
class ClassifySpec:
    """How the images of a request are classified, checked."""

    model: ServedModel
    views: int
    top_k: int | None
    """None: all classes."""
    adaptive: bool


@dataclass(frozen=True, slots=True)
class SignedPrediction:
    """A prediction that was counted and signed."""

    probabilities_K: list[float]
    """Probabilities in the order of the model's classes."""
    ranking_K: list[int]
    """Class indices, most probable first."""
    views: int
    record: PredictionRecord
    token: str
