"""Fuzzes the decoder with atheris, which steers by the branches that an input takes: `make fuzz SECONDS=60`.

    python -m tests.fuzz.decoder FOLDER SECONDS SEED

Interesting inputs are kept in FOLDER, where the next run begins. An input that breaks a rule is written
there as crash-*, timeout-* or oom-*, and the exit code is not 0. The rules: an image or an ImageError, in bounded time
and memory, the size of a plain JPEG is the one that Pillow reads, and no bytes make a process that has enough memory
believe that it has too little: a MemoryError breaks a rule.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support.commands import ROOT

MAX_S = 60
"""For one input, in seconds. Watched as closely as it is here, Pillow's loop over the 65,536 colours that a BMP of 56
bytes may claim to have takes ten on a busy machine; otherwise, 0.02."""
MAX_MIB = 600
"""Resident, with the fuzzer's own."""
MAX_PIXELS = 2_000_000
MAX_BYTES = 2**14


def decode_one(data: bytes) -> None:
    """Decode bytes as the server does; raise an error if a rule is broken."""
    from PIL import Image

    from serving.image.decode import ImageError, Limits, decode
    from serving.image.headers import plain_size

    for min_side in (0, 16):
        try:
            pixels = decode(data, min_side=min_side, limits=Limits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS))
        except ImageError:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
        if min_side == 0 and (size := plain_size(data)):
            with Image.open(io.BytesIO(data)) as image:
                assert size == image.size == pixels.shape[1::-1]


def fuzz(folder: Path, seconds: int, seed: int) -> "subprocess.CompletedProcess[str]":
    """Fuzz for a number of seconds in a process of its own, because an input may kill it."""
    # By way of a shell, since a process takes over the peak of memory of the one that made it: a caller of a gigabyte
    # would pass for an input that takes one.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "tests.fuzz.decoder", folder, seconds, seed]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    folder, seconds, seed = sys.argv[1:]
    with atheris.instrument_imports(include=["PIL", "serving"]):  # whose branches are seen
        import serving.image.decode  # noqa: F401
        from tests.fuzz.seeds import write_seeds
    write_seeds(Path(folder))
    options = ["-print_final_stats=1", f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={MAX_S}"]
    options += [f"-rss_limit_mb={MAX_MIB}", f"-artifact_prefix={folder}/", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], folder, *options], decode_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
