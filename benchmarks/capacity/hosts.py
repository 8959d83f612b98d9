"""Which part limits a host with a GPU: the engine, the CPUs that decode, or the event loops; in closed form."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageCosts:
    """CPU seconds of a server for each image, without the engine; from `benchmarks.serving.scaling`."""

    loop_s: float
    """Of the event loop, one thread of each process."""
    workers_s: float
    """Of the worker threads: decoding, resizing, views."""
    other_s: float
    """Of all other threads: gRPC's input and output, statistics."""

    @property
    def rpc_s(self) -> float:
        """All but decoding."""
        return self.loop_s + self.other_s


GPUS: Mapping[str, float] = {"L4": 12_900.0, "A10": 13_300.0, "H100": 88_000.0}
"""Images a second of ResNet-50 in INT8 in large batches: assumptions, not measured here.

L4 and H100 SXM: MLPerf Inference, offline scenario, a GPU. The A10 is taken as 1.03 times the L4, the ratio of their
dense INT8 operations a second in the data sheets (250 and 242 TOPS). resnet34 has 3.7 GFLOP, ResNet-50 4.1.
"""


@dataclass(frozen=True, kw_only=True)
class HostLimits:
    """Images a second that each part of a host could do if the others cost nothing."""

    engine: float
    cpus: float
    """All CPUs, for decoding and RPC."""
    loops: float
    """The event loops of all processes."""
    decodes_more: bool
    """Whether decoding takes more of the CPUs than RPC."""

    @property
    def capacity(self) -> float:
        """The smallest."""
        return min(self.engine, self.cpus, self.loops)

    @property
    def limit(self) -> str:
        """What the smallest is: engine, decode or RPC."""
        if self.capacity == self.engine:
            return "engine"
        return "decode" if self.capacity == self.cpus and self.decodes_more else "RPC"


def host_limits(costs: ImageCosts, *, cpus: int, processes: int, engine: float) -> HostLimits:
    """The limits of a host.

    Args:
        engine: images a second that the GPU computes.
    """
    return HostLimits(
        engine=engine,
        cpus=cpus / (costs.rpc_s + costs.workers_s),
        loops=processes / costs.loop_s,
        decodes_more=costs.workers_s > costs.rpc_s,
    )


def cpus_for(costs: ImageCosts, engine: float) -> float:
    """CPUs that keep a GPU busy which computes so many images a second."""
    return engine * (costs.rpc_s + costs.workers_s)
