"""Which part limits a host with a GPU: the engine, the CPUs that decode, or the event loops; in closed form."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter


@dataclass(frozen=True, kw_only=True)
class ImageCosts:
    """CPU seconds of a server for each image, without the engine; from `benchmarks.serving.scaling`."""

    loop_s: float
    """CPU time of the event loop, one thread of each process."""
    workers_s: float
    """CPU time of the worker threads: decoding, resizing, views."""
    other_s: float
    """CPU time of all other threads: gRPC's input and output, statistics."""

    @property
    def rpc_s(self) -> float:
        """All but decoding."""
        return self.loop_s + self.other_s

    @property
    def all_s(self) -> float:
        """CPU time of all threads."""
        return self.rpc_s + self.workers_s


GPUS: Mapping[str, float] = {"L4": 12_900.0, "A10": 13_300.0, "H100": 88_000.0}
"""Images a second of ResNet-50 in INT8 in large batches: assumptions, not measured here.

L4 and H100 SXM: MLPerf Inference, offline scenario, a GPU. The A10 is taken as 1.03 times the L4, the ratio of their
dense INT8 operations a second in the data sheets (250 and 242 TOPS). resnet34 has 3.7 GFLOP, ResNet-50 4.1.
"""


def host_capacity(costs: ImageCosts, *, cpus: int, processes: int, engine: float) -> tuple[float, str]:
    """Images a second of a host, and what limits them: engine, decode or RPC.

    Args:
        engine: images a second that the GPU computes.
    """
    limits = (
        (engine, "engine"),
        (cpus / costs.all_s, "decode" if costs.workers_s > costs.rpc_s else "RPC"),
        (processes / costs.loop_s, "RPC"),  # the event loops
    )
    return min(limits, key=itemgetter(0))
