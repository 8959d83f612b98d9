"""A plan that was measured in; the same plan at the next start out.

One small file for each model and host, in a folder; its name is a hash of everything that the measurement depends on.
A file that cannot be used is as good as none, and one that cannot be written costs a measurement at the next start.
"""

import hashlib
import json
import logging
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

import onnxruntime as ort

from serving.engine import Plan
from serving.plan import ChosenPlan, PlanOptions

FORMAT = 2

logger = logging.getLogger(__name__)


def plan_key(model_hash: str, runtime: str, device: str, cpus: int, options: PlanOptions) -> str:
    """32 hexadecimal digits: SHA-256 of the model, the host, the runtime's release and what was asked for."""
    parts = [FORMAT, model_hash, runtime, device, cpus, _cpu_name(), platform.node(), ort.__version__]
    fixed = [options.instances, options.threads, options.max_batch_size, options.latency_bound_ms]
    return hashlib.sha256(json.dumps([*parts, *fixed]).encode()).hexdigest()[:32]


def read_plan(folder: Path, key: str) -> ChosenPlan | None:
    """The plan of a key; None if there is none that can be used."""
    path = folder / f"{key}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        numbers = fields.pop("plan")
        if not all(type(number) is int for number in numbers.values()):
            raise ValueError(f"the plan is {numbers}")
        plan = Plan(**numbers)
        chosen = ChosenPlan(plan=plan, **fields)
        rows_per_second, latency_s = float(fields["rows_per_second"]), float(fields["latency_s"])
        if not (rows_per_second > 0 and latency_s > 0):
            raise ValueError(f"{rows_per_second} rows/s, {latency_s} s")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s cannot be used (%s): the plan is measured again", path, error)
        return None
    return chosen


def write_plan(folder: Path, key: str, chosen: ChosenPlan) -> None:
    """Keep a plan, written whole; where that fails, the log says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".partial", delete=False, encoding="utf-8") as file:
            try:
                json.dump(asdict(chosen), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, folder / f"{key}.json")
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        logger.warning("the plan cannot be kept in %s (%s): it is measured at each start", folder, error)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
