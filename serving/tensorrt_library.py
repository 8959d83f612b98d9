"""An installed TensorRT in; its module, of the release that this code knows, and a logger that keeps reasons, out."""

from typing import Any

from serving.engine_cache import EngineError

TENSORRT = "11.4"
"""The release that this code was written against."""


def load_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        EngineError: if it is not installed, or of another release.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT cannot be imported ({error}): pip install 'pawserve[gpu]', with the extra package index that "
            "NVIDIA's install guide for TensorRT names"
        ) from error
    release = str(trt.__version__)
    if release.split(".")[0] != TENSORRT.split(".")[0]:
        raise EngineError(f"TensorRT {release} is installed; this pawserve needs {TENSORRT.split('.')[0]}.x")
    return trt


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors and warnings: TensorRT's calls return None or False, and the reason is logged."""

    class StoringLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(msg)

        def reason(self) -> str:
            """What was logged last, for the end of a sentence."""
            return "; ".join(self.errors[-3:]) or "TensorRT gave no reason"

    return StoringLogger()
