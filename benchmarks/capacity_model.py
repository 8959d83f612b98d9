"""What one replica's work costs, as measured or assumed, in; what limits it, in closed form, out."""

import json
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoopCosts:
    """CPU seconds of an event loop: the server's, or that of a client."""

    request_s: float
    """For each request, from its arrival to its answer."""
    picture_s: float
    """For each picture in it, on top."""
    wake_s: float
    """Each time that the loop had nothing to do, and is woken. A busy loop is woken less often."""
    read_s: float = 0.0
    """For each answer that a client gets, of gRPC's own thread, which reads it and then tells the loop: on a busy CPU
    each of the two waits for its turn."""

    def seconds(self, pictures: int) -> float:
        """For one request, without wakes."""
        return self.request_s + pictures * self.picture_s


@dataclass(frozen=True, kw_only=True)
class ReplicaModel:
    """One server process: what it has, and what its work costs."""

    cpus: int
    """CPUs that its threads share."""
    workers: int
    """Threads that prepare pictures and run engines."""
    instances: int
    """Engines. On a CPU each runs in its worker's thread; on a GPU all share the GPU, and the threads only wait."""
    max_batch_size: int
    """Most rows in an engine call."""
    on_gpu: bool = False
    max_rows: int = 1024
    """Most rows in flight (`--max-queue-views`)."""
    loop: LoopCosts
    worker_s: float
    """CPU seconds of other threads than the loop for each picture, beside preparing it and computing its rows; negative
    if a busy server is quicker at these than they are alone."""
    rested_s: tuple[tuple[float, float], ...] = ()
    """(seconds that a worker had nothing to do, CPU seconds that its next picture then costs more): caches are cold,
    and the machine has turned to others. Linear between, and from none after none."""
    prepare_s: tuple[float, ...]
    """Seconds that one CPU needs to decode, resize and cut a picture: equally likely values."""
    engine_s: dict[int, float]
    """Rows -> seconds of one engine call, on one CPU or on the GPU; between and beyond them it is linear."""
    spread: tuple[float, ...] = (1.0,)
    """What an engine call or preparing a picture takes, as a share of its mean: equally likely values with mean 1."""
    request_bytes: float
    """Of a request with one picture, on the wire."""
    answer_bytes: float
    nic_bytes_per_s: float = inf
    """Of the replica's network card, each way."""

    def __post_init__(self) -> None:
        for name in ("cpus", "workers", "instances", "max_batch_size", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.prepare_s or not self.engine_s:
            raise ValueError("prepare_s and engine_s need at least one measurement; `fit` takes them")

    def engine_seconds(self, rows: int) -> float:
        """How long an engine call with so many rows takes."""
        points = sorted(self.engine_s.items())
        if len(points) == 1:
            return points[0][1] * rows / points[0][0]
        above = next((i for i, (size, _) in enumerate(points) if size >= rows), len(points) - 1)
        (left, left_s), (right, right_s) = points[max(0, above - 1) : max(0, above - 1) + 2]
        return left_s + (right_s - left_s) * (rows - left) / (right - left)

    def rested_seconds(self, idle_s: float) -> float:
        """What a picture costs more after its worker had nothing to do for so long."""
        before, before_s = 0.0, 0.0
        for after, after_s in self.rested_s:
            if idle_s < after:
                return before_s + (after_s - before_s) * (idle_s - before) / (after - before)
            before, before_s = after, after_s
        return before_s

    def limits(self, pictures: int = 1, views: int = 1) -> dict[str, float]:
        """Requests a second that each part could do if the others cost nothing; the smallest is the capacity.

        A busy server computes full batches, and never rests: so it is for queues that never run empty.
        """
        rows = pictures * views
        prepare_s = pictures * (sum(self.prepare_s) / len(self.prepare_s) + self.worker_s)
        engine_s = rows * self.engine_seconds(self.max_batch_size) / self.max_batch_size
        loop_s = self.loop.seconds(pictures)
        cpu_s = loop_s + prepare_s + (0 if self.on_gpu else engine_s)
        workers = self.workers if self.on_gpu else min(self.workers, self.cpus)
        limits = {
            "event loop": 1 / loop_s,
            "CPUs": self.cpus / cpu_s,
            "engine": (1 if self.on_gpu else min(self.instances, self.cpus)) / engine_s,
            "workers": workers / (prepare_s + (0 if self.on_gpu else engine_s)),
        }
        if self.nic_bytes_per_s < inf:
            limits["network"] = self.nic_bytes_per_s / max(pictures * self.request_bytes, self.answer_bytes)
        return dict(sorted(limits.items(), key=lambda limit: limit[1]))

    def capacity(self, pictures: int = 1, views: int = 1) -> float:
        """Requests a second of which the queue never runs empty."""
        return min(self.limits(pictures, views).values())

    def cpus_for(self, rows_per_s: float, pictures: int = 1, views: int = 1) -> int:
        """CPUs that so many rows a second need, the engine's own not counted where it is a GPU."""
        one = replace(self, cpus=1, workers=max(1, self.workers))
        return ceil(rows_per_s / (pictures * views) / one.limits(pictures, views)["CPUs"])

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(to_json(self), indent=2) + "\n")


def to_json(model: ReplicaModel) -> dict[str, Any]:
    """As JSON has it, which knows no infinity."""
    fields = asdict(model)
    if fields["nic_bytes_per_s"] == inf:
        del fields["nic_bytes_per_s"]
    return fields


def from_json(fields: dict[str, Any]) -> ReplicaModel:
    """The reverse of `to_json`. Raises ValueError for what is none."""
    try:
        return ReplicaModel(
            **{
                **fields,
                "loop": LoopCosts(**fields["loop"]),
                "prepare_s": tuple(fields["prepare_s"]),
                "engine_s": {int(rows): seconds for rows, seconds in fields["engine_s"].items()},
                "spread": tuple(fields.get("spread", (1.0,))),
                "rested_s": tuple((idle_s, extra_s) for idle_s, extra_s in fields.get("rested_s", ())),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no replica's model as `capacity fit` writes it: {error}") from error


def load(path: Path) -> ReplicaModel:
    """Read what `save` wrote, or the results of `capacity check`, which hold it. Raises ValueError for other files."""
    try:
        fields = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); `python -m benchmarks.capacity fit` writes one") from error
    return from_json(fields.get("model", fields) if isinstance(fields, dict) else {})
