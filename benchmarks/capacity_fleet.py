"""A fitted model and assumptions about GPUs in; what fleets of them need, and how long callers wait there, out.

Nothing of this was measured on a GPU. What is assumed is in ASSUMPTIONS, with its source; what the CPUs do was fitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from benchmarks.capacity_clients import BALANCES, Placement, poisson, simulate
from benchmarks.capacity_model import ReplicaModel

GPU_ONE_ROW_S = 0.00067
GPU_ROWS_PER_S = 9765.0
GPU_BATCH = 64
NIC_GBIT_PER_S = 25.0
UTILISATION = 0.7
ASSUMPTIONS = (
    "GPU, large batches: 9,765 rows/s. timm publishes that for tf_efficientnet_lite0 at 224 px on an RTX 4090 (PyTorch "
    "2.4, AMP, channels last, batches of 512: results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv). TensorRT in "
    "INT8 should be faster; another GPU differs.",
    "GPU, one row: 0.67 ms. NVIDIA publishes that for EfficientNet-B0 in INT8 on an A100 with TensorRT 8.4 (TensorFlow "
    "quantization toolkit, model zoo results). Between the two, a call's time is taken as linear in its rows.",
    "Copies to the GPU hide behind its kernels; processes on one GPU take turns on it and lose nothing by it.",
    "CPU cores as fast as the one that was fitted, however many work at once; no limit of memory bandwidth.",
    "Network cards of 25 Gbit/s, all of which photos may use.",
    "Photos like those that were fitted; larger ones cost more to decode and to send, in proportion.",
)
CPUS_PER_GPU = 16
PROCESSES_PER_GPU = 8
SAMPLED_GPUS = 10
CONNECTIONS_PER_GPU = 50


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a GPU that computes all it can needs beside it, for requests of so many pictures."""

    pictures: int
    rows_per_s: float
    cpus: int
    """To decode, to speak the protocol, and for what else threads do."""
    decode_cpus: float
    """Of these, to decode, resize and cut."""
    loop_pictures_per_s: float
    """What one process's event loop can do."""
    processes: int
    """So that no event loop is busy for more than UTILISATION of the time."""
    gbit_per_s: float


def on_gpu(model: ReplicaModel, *, cpus: int) -> ReplicaModel:
    """The same process with an engine on the assumed GPU; its workers as serving/models/layout.py counts them."""
    return replace(
        model,
        cpus=cpus,
        workers=cpus + 1,
        instances=1,
        on_gpu=True,
        max_batch_size=GPU_BATCH,
        engine_s={1: GPU_ONE_ROW_S, 512: 512 / GPU_ROWS_PER_S},
        spread=(1.0,),
    )


def needs(model: ReplicaModel) -> list[Need]:
    """By the number of pictures in a request."""
    gpu = on_gpu(model, cpus=1)
    rows_per_s = gpu.limits()["engine"]
    decode_s = sum(model.prepare_s) / len(model.prepare_s)
    found = []
    for pictures in (1, 8, 64):
        loop = gpu.limits(pictures)["event loop"] * pictures
        found.append(
            Need(
                pictures=pictures,
                rows_per_s=rows_per_s,
                cpus=gpu.cpus_for(rows_per_s, pictures),
                decode_cpus=rows_per_s * decode_s,
                loop_pictures_per_s=loop,
                processes=ceil(rows_per_s / (loop * UTILISATION)),
                gbit_per_s=rows_per_s * model.request_bytes * 8e-9,
            )
        )
    return found


def fleets(model: ReplicaModel, labels_per_s: float) -> list[dict[str, float]]:
    """For 10, 100 and 1,000 GPUs that work for UTILISATION of the time, with one picture in a request."""
    [need, *_] = needs(model)
    rows = []
    for gpus in (10, 100, 1000):
        pictures_per_s = gpus * need.rows_per_s * UTILISATION
        gbit_per_s = pictures_per_s * model.request_bytes * 8e-9
        rows.append(
            {
                "gpus": gpus,
                "pictures_per_s": pictures_per_s,
                "cpus": ceil(gpus * need.cpus * UTILISATION),
                "processes": gpus * ceil(need.processes * UTILISATION),
                "gbit_per_s": gbit_per_s,
                "network_cards": ceil(gbit_per_s / (NIC_GBIT_PER_S * UTILISATION)),
                "labelled_share_at_most": min(1.0, labels_per_s / pictures_per_s),
            }
        )
    return rows


def waits(model: ReplicaModel, *, gpus: int, seconds: float, seed: int) -> Iterator[dict[str, Any]]:
    """How long callers wait, by utilisation of the GPUs and by how their clients choose a process."""
    cpus = max(1, CPUS_PER_GPU // PROCESSES_PER_GPU)
    gpu = on_gpu(model, cpus=cpus)
    replicas = gpus * PROCESSES_PER_GPU
    placement = Placement(
        replicas=[number // PROCESSES_PER_GPU for number in range(replicas)],
        gpus=[number // PROCESSES_PER_GPU for number in range(replicas)],
        clients=[None] * gpus * CONNECTIONS_PER_GPU,
        cpus=[CPUS_PER_GPU] * gpus,
    )
    most = gpus * gpu.limits()["engine"]
    for utilisation in (0.3, 0.5, 0.7, 0.8, 0.9):
        for balance in BALANCES:
            arrivals = poisson(
                gpu, rate=utilisation * most, seconds=seconds, clients=gpus * CONNECTIONS_PER_GPU, seed=seed
            )
            summary = simulate(gpu, arrivals, replicas=replicas, balance=balance, placement=placement, seed=seed)
            yield {
                "utilisation": utilisation,
                "balance": balance,
                "p50_ms": summary.p50_ms,
                "p99_ms": summary.p99_ms,
                "answered_share": summary.answered / summary.sent,
                "cpu_busy": summary.busy,
                "rows_per_call": summary.rows_per_call,
            }
