"""Coverage-guided fuzzing of the decoder, and files that are built to be hostile.

PAWSERVE_FUZZ_S is the duration in seconds; PAWSERVE_FUZZ_SEED (0) is the seed.
"""

import os
from pathlib import Path

import pytest

from serving.image.decode import ImageError, Limits, Reason, decode
from tests.fuzz.decoder import fuzz
from tests.fuzz.seeds import seeds, with_jpeg_size

SECONDS = int(os.environ.get("PAWSERVE_FUZZ_S", "4"))
SEED = int(os.environ.get("PAWSERVE_FUZZ_SEED", "0"))
SEEDS = seeds()


@pytest.mark.timeout(SECONDS + 120)
def test_no_input_found_by_fuzzing_breaks_a_rule(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs the fuzzer: pip install atheris; it is built for Linux")
    finished = fuzz(tmp_path, SECONDS, SEED)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    assert len([*tmp_path.iterdir()]) > len(SEEDS), "no input took a new branch: it is not steered"


@pytest.mark.parametrize("name", ["plain.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg"])
@pytest.mark.parametrize("size", [(65_535, 65_535), (65_535, 1000), (0, 10), (10, 0), (0, 0)])
def test_a_jpeg_with_a_false_size_is_rejected(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError) as caught:
        decode(with_jpeg_size(SEEDS[name], *size))
    large = size[0] * size[1] > Limits().max_pixels
    assert (caught.value.reason is Reason.TOO_LARGE) == large


@pytest.mark.parametrize("cut", range(2, len(SEEDS["plain.jpg"]), 7))
def test_a_truncated_jpeg_is_rejected(cut: int) -> None:
    with pytest.raises(ImageError):
        decode(SEEDS["plain.jpg"][:cut])
