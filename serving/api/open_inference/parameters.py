"""The parameters of an Open Inference Protocol request."""

from dataclasses import dataclass

from serving.api.errors import ApiError, invalid
from serving.api.open_inference.inputs import MAX_SHOWN
from serving.pb.inference import open_inference_pb2 as pb

WANTS_FINAL_RESPONSE = "triton_enable_empty_final_response"
FINAL_RESPONSE = "triton_final_response"
WITHOUT_EFFECT = {WANTS_FINAL_RESPONSE, "priority", "sequence_id", "sequence_start", "sequence_end"}
"""Parameters that Triton accepts for models without state and without priority levels; like there, they change no
prediction here."""
TYPES = {"views": int, "top_k": int, "adaptive": bool, "timeout": int}


@dataclass(frozen=True, slots=True)
class Parameters:
    """None: not given."""

    views: int | None
    top_k: int | None
    adaptive: bool
    timeout_us: int | None
    """Microseconds after which the client no longer needs the response."""

    @classmethod
    def parse(cls, request: pb.ModelInferRequest) -> "Parameters":
        """Read the parameters; `ClassificationService.check` checks their ranges.

        Raises:
            ApiError: INVALID_ARGUMENT for a parameter that is unknown or has another type.
        """
        values: dict[str, int | bool] = {}
        for name, parameter in request.parameters.items():
            if name in WITHOUT_EFFECT:
                continue
            if name not in TYPES:
                raise _invalid(f"parameter {name[:MAX_SHOWN]!r} is not known; use {', '.join(TYPES)}")
            choice = parameter.WhichOneof("parameter_choice")
            allowed = ("bool_param",) if TYPES[name] is bool else ("int64_param", "uint64_param")
            if choice not in allowed:
                raise _invalid(f"parameter {name} is {choice or 'empty'}; it must be {' or '.join(allowed)}")
            values[name] = getattr(parameter, choice)
        if values.get("timeout", 1) < 1:
            raise _invalid(f"timeout is {values['timeout']}; it must be at least 1 microsecond")
        return cls(values.get("views"), values.get("top_k"), bool(values.get("adaptive")), values.get("timeout"))

    def limit_timeout(self, timeout_s: float | None) -> float | None:
        """The smaller one of the call's timeout in seconds and the request's own; None if there is neither."""
        if self.timeout_us is None:
            return timeout_s
        own_s = self.timeout_us / 1e6
        return own_s if timeout_s is None else min(own_s, timeout_s)


def _invalid(message: str) -> ApiError:
    return invalid("PARAMETER_INVALID", message, "parameters")
