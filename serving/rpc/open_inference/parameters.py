"""The parameters of an Open Inference Protocol request in; what they ask for, checked, out."""

from dataclasses import dataclass

from serving.pb.inference import open_inference_pb2 as pb
from serving.rpc.errors import ApiError, invalid

WANTS_FINAL_RESPONSE = "triton_enable_empty_final_response"
FINAL_RESPONSE = "triton_final_response"
NO_MATTER = {WANTS_FINAL_RESPONSE, "priority", "sequence_id", "sequence_start", "sequence_end"}
"""What Triton takes for models that keep nothing between requests and have no priority levels; they change nothing here
either, since every picture is answered by itself, and in an order fair to callers."""
KNOWN = {"views": int, "top_k": int, "adaptive": bool, "timeout": int}
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Parameters:
    """None: not given."""

    views: int | None
    top_k: int | None
    adaptive: bool
    timeout_us: int | None
    """Microseconds after which nobody wants the answer."""

    @classmethod
    def read(cls, request: pb.ModelInferRequest) -> "Parameters":
        """The parameters of a request; their ranges are checked where they are used.

        Raises:
            ApiError: INVALID_ARGUMENT for one that is not known, or is of another type.
        """
        values: dict[str, int | bool] = {}
        for name, parameter in request.parameters.items():
            if name in NO_MATTER:
                continue
            if name not in KNOWN:
                raise _wrong(f"parameter {name[:_MAX_SHOWN]!r} is not known; there are {', '.join(KNOWN)}")
            choice = parameter.WhichOneof("parameter_choice")
            allowed = ("bool_param",) if KNOWN[name] is bool else ("int64_param", "uint64_param")
            if choice not in allowed:
                raise _wrong(f"parameter {name} must be {' or '.join(allowed)}; it is {choice or 'empty'}")
            values[name] = getattr(parameter, choice)
        if values.get("timeout", 1) < 1:
            raise _wrong(f"timeout is {values['timeout']}; it is in microseconds, from 1")
        return cls(values.get("views"), values.get("top_k"), bool(values.get("adaptive")), values.get("timeout"))

    def shorten(self, timeout_s: float | None) -> float | None:
        """The request's own timeout, in seconds, or the call's, whichever is less; None for neither."""
        if self.timeout_us is None:
            return timeout_s
        own_s = self.timeout_us / 1e6
        return own_s if timeout_s is None else min(own_s, timeout_s)


def _wrong(message: str) -> ApiError:
    return invalid("PARAMETER_INVALID", message, "parameters")
