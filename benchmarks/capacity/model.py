"""What limits a replica, in closed form, from the CPU time that each part of its work costs."""

from dataclasses import dataclass
from math import ceil

UTILIZATION = 0.7
"""Part of the capacity to plan for: above it, waiting times grow quickly (measured; docs/scaling.md)."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """CPU seconds of one server process.

    The defaults were measured on one core of an AMD EPYC, with tf_efficientnet_lite0 in INT8 and JPEGs of 45 kB.
    """

    prepare_s: float = 0.837e-3
    """CPU time to decode and resize one image."""
    engine_s: float = 2.153e-3
    """CPU time to compute one row (one view of one image), in full batches."""
    worker_s: float = 0.292e-3
    """Other work of the worker threads for each image."""
    request_s: float = 0.329e-3
    """CPU time of the event loop for each request: gRPC, checks, admission."""
    image_s: float = 0.125e-3
    """CPU time of the event loop for each image in a request, in addition: tokens, results."""
    image_bytes: float = 44_864
    """Size of an encoded image on the wire."""

    def loop_s(self, images: int) -> float:
        """Event loop seconds of one request."""
        return self.request_s + images * self.image_s


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What a GPU computes. Engine calls are taken as linear in their rows.

    The defaults were published, not measured here: 0.67 ms for one row (NVIDIA, EfficientNet-B0 in INT8 on an A100 with
    TensorRT 8.4, model zoo of the TensorFlow quantization toolkit), and 9,765 rows/s in batches of 512 (timm,
    tf_efficientnet_lite0 on an RTX 4090 in PyTorch: results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv).
    """

    one_row_s: float = 0.67e-3
    rows_per_s: float = 9765.0
    rows_per_s_batch: int = 512
    """The batch size at which `rows_per_s` was measured."""
    batch: int = 64
    """The batch size of the server."""

    def served_rows_per_s(self) -> float:
        """Rows a second in batches of `batch`."""
        slope_s = (self.rows_per_s_batch / self.rows_per_s - self.one_row_s) / (self.rows_per_s_batch - 1)
        return self.batch / (self.one_row_s + slope_s * (self.batch - 1))


def limits(costs: Costs, *, cpus: int, images: int = 1, views: int = 1, gpu: Gpu | None = None) -> dict[str, float]:
    """Images a second that each part of one process could do if the others cost nothing, the smallest first.

    The smallest is the capacity: what a process answers while its queue never runs empty.

    Args:
        images: number of images in a request.
        views: number of views of each image, each of which is a row for the engine.
        gpu: where rows are computed. None: on the CPUs.
    """
    loop_s = costs.loop_s(images) / images
    cpu_s = loop_s + costs.prepare_s + costs.worker_s + (0 if gpu else views * costs.engine_s)
    found = {"event loop": 1 / loop_s, "CPUs": cpus / cpu_s}
    if gpu:
        found["GPU"] = gpu.served_rows_per_s() / views
    return dict(sorted(found.items(), key=lambda limit: limit[1]))


def replicas_needed(images_per_s: float, capacity: float) -> int:
    """Replicas for a load, each used to `UTILIZATION` of its capacity (images a second)."""
    return ceil(images_per_s / (UTILIZATION * capacity))


@dataclass(frozen=True, kw_only=True)
class GpuHost:
    """What one GPU that computes all the time needs beside it."""

    images_per_s: float
    cpus: int
    decode_cpus: float
    """Those of `cpus` that decode and resize."""
    loop_images_per_s: float
    """Capacity of one process's event loop."""
    processes: int
    """Number of processes with which no event loop is used for more than `UTILIZATION`."""
    gbit_per_s: float


def gpu_host(costs: Costs, gpu: Gpu, *, images: int) -> GpuHost:
    """What one GPU needs for requests of so many images, with one view each."""
    found = limits(costs, cpus=1, images=images, gpu=gpu)
    images_per_s = found["GPU"]
    return GpuHost(
        images_per_s=images_per_s,
        cpus=ceil(images_per_s / found["CPUs"]),
        decode_cpus=images_per_s * costs.prepare_s,
        loop_images_per_s=found["event loop"],
        processes=replicas_needed(images_per_s, found["event loop"]),
        gbit_per_s=images_per_s * costs.image_bytes * 8e-9,
    )
