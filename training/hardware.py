"""Chooses the device, number format and worker processes, and makes torch deterministic."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from serving.system.cpus import available_cpus
from training.console import say

MAX_WORKERS = 16


@dataclass(frozen=True)
class Hardware:
    """The device that a network is trained on, and how."""

    device: torch.device
    autocast: torch.dtype | None
    """The lower precision of the forward pass, if any."""
    workers: int
    """Processes that decode images during training; with 0, threads do it between the steps."""

    @property
    def scaled(self) -> bool:
        """Whether gradients need scaling: float16 has too few exponents, bfloat16 has enough."""
        return self.autocast == torch.float16

    def __str__(self) -> str:
        precision = "float32" if self.autocast is None else str(self.autocast).removeprefix("torch.")
        decoding = f"{self.workers} decoding processes" if self.workers else "decoding between steps"
        return f"{self.device.type}, {precision}, {decoding}"


def choose_hardware() -> Hardware:
    """The GPU of this process if there is one, otherwise the CPU; sets torch's global options.

    float32 on CPUs, since bfloat16 is slower there without matrix units; bfloat16 on GPUs that have it, else float16.
    Convolutions are deterministic, so that a seed gives the same run twice.
    """
    cpus = limit_threads()
    if not torch.cuda.is_available():
        return Hardware(torch.device("cpu"), None, 0)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    autocast = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return Hardware(device, autocast, min(cpus, MAX_WORKERS) * workers_can_start())


def workers_can_start() -> bool:
    """Whether this machine has what worker processes need: a /dev/shm for their semaphores, of any size."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        say(
            f"/dev/shm cannot be used ({error.strerror or error}), so images are decoded between the steps, not by "
            "worker processes; in Docker, leave --shm-size out or give --shm-size 64m"
        )
        return False
    return True


def limit_threads() -> int:
    """Let torch use no more threads than CPUs, and return their number; by itself it makes one for each core."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cpus = max(available_cpus() // processes, 1)
    torch.set_num_threads(min(torch.get_num_threads(), cpus))
    return cpus


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads in the block.

    For a head, a second thread gains little and costs much on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
