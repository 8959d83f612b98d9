"""The cache of TensorRT engines that were built on this host.

A plan runs only on the GPU model and with the TensorRT release that built it, and it contains code. So each plan has a
folder named by a hash of all that it depends on, with a sidecar file that describes it. It is loaded only if the
sidecar fits this host and the plan has the SHA-256 of the sidecar.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.bundle.manifest import Precision

PLAN, SIDECAR = "engine.plan", "engine.json"


class EngineBuildError(RuntimeError):
    """A TensorRT engine cannot be built, loaded or run; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Description of a plan: what it was built from, where, and how."""

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
        """The folder's name: 32 hexadecimal digits of the SHA-256 of all fields that do not depend on the plan."""
        fields = asdict(self)
        del fields["plan_sha256"], fields["plan_bytes"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def default_engines() -> Path:
    """The cache: `$PAWSERVE_ENGINES`, or `$XDG_CACHE_HOME/pawserve/engines`, or `~/.cache/pawserve/engines`."""
    if given := os.environ.get("PAWSERVE_ENGINES"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pawserve" / "engines"


def read_sidecar(folder: Path) -> Sidecar:
    """Read the description of the engine in a folder.

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
    """Find the engines that were built from ONNX files with these hashes, with their folders; skip damaged ones."""
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
    """Read a plan, after checking that it fits this host and its sidecar.

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
