"""TensorRT engines on this host: a key in; the plan, checked, out.

A plan runs only on the GPU model and TensorRT release that built it, and it is code. So each lies in a folder named by
all that it depends on, beside a sidecar that says what it is, and is loaded only if the sidecar and its SHA-256 fit.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.bundle.manifest import Precision

PLAN, SIDECAR = "engine.plan", "engine.json"


class EngineBuildError(RuntimeError):
    """An engine that cannot be built, loaded or run; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What a plan is, and what it was built from."""

    onnx_sha256: str
    precision: Precision
    tensorrt: str
    """TensorRT's release."""
    gpu: str
    compute_capability: str
    """Such as `9.0`."""
    min_batch: int
    opt_batch: int
    max_batch: int
    optimization_level: int
    plan_sha256: str = ""
    plan_bytes: int = 0

    def key(self) -> str:
        """32 hexadecimal digits: SHA-256 of everything but the plan itself."""
        fields = asdict(self)
        del fields["plan_sha256"], fields["plan_bytes"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def default_engines() -> Path:
    """`$PAWSERVE_ENGINES`, or `$XDG_CACHE_HOME/pawserve/engines`, or `~/.cache/pawserve/engines`."""
    if given := os.environ.get("PAWSERVE_ENGINES"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pawserve" / "engines"


def read_sidecar(folder: Path) -> Sidecar:
    """What the engine in a folder is.

    Raises:
        EngineBuildError: if there is none, or it cannot be read.
    """
    try:
        return Sidecar(**json.loads((folder / SIDECAR).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EngineBuildError(
            f"{folder / SIDECAR} cannot be read ({error}): build the engine again with python -m export engine"
        ) from error


def find_engines(engines: Path, onnx_sha256: set[str]) -> list[tuple[Path, Sidecar]]:
    """The engines in the cache that were built from these ONNX files, with their folders; damaged ones are left out."""
    found = []
    for path in sorted(engines.glob(f"*/{SIDECAR}")):
        try:
            sidecar = read_sidecar(path.parent)
        except EngineBuildError:
            continue
        if sidecar.onnx_sha256 in onnx_sha256:
            found.append((path.parent, sidecar))
    return found


def read_plan(folder: Path, *, gpu: str, compute_capability: str, tensorrt: str) -> tuple[bytes, Sidecar]:
    """A plan that fits this host, checked against its sidecar.

    Raises:
        EngineBuildError: if it was built for another GPU or TensorRT, or is not what the sidecar describes.
    """
    sidecar = read_sidecar(folder)
    for what, built, here in (
        ("GPU", f"{sidecar.gpu} ({sidecar.compute_capability})", f"{gpu} ({compute_capability})"),
        ("TensorRT", sidecar.tensorrt, tensorrt),
    ):
        if built != here:
            raise EngineBuildError(
                f"{folder} was built for {what} {built}, and this host has {here}: engines are not portable, build it "
                "again with python -m export engine"
            )
    path = folder / PLAN
    try:
        size = path.stat().st_size
        if size != sidecar.plan_bytes:
            raise EngineBuildError(
                f"{path} has {size:,} bytes, and its sidecar says {sidecar.plan_bytes:,}: build it again"
            )
        plan = path.read_bytes()
    except OSError as error:
        raise EngineBuildError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
        raise EngineBuildError(f"{path} is not the plan that its sidecar describes: it was changed. Build it again")
    return plan, sidecar
