"""Memory of decoding: freed memory is reused for the next image, and large images need no more than their decoder."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from serving.image.orientation import EXIF_ORIENTATION
from tests.support.commands import ROOT
from tests.support.images import encoded
from tests.support.waiting import LIMIT_S

# the blocks of an image: its bytes, its pixels, those of the square, and the canvas
PROGRAM = """
import resource, sys
import numpy as np
from serving.system.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work(images):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(images):
        blocks = [np.ones(2**20, np.uint8) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
work(10)
print(work(100))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems has no such settings")
def test_freed_memory_is_reused() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout)

    assert faults("kept") < faults("as it is") / 4


TRAINING_STEPS = """
import resource, sys
from contextlib import nullcontext
import numpy as np
from serving.system.memory import all_freed_memory_kept
def work(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        blocks = [np.ones(2**26, np.uint8) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
with all_freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    work(1)
    faults = work(5)
print(faults, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems has no such settings")
def test_training_steps_reuse_freed_memory_and_return_it_at_the_end() -> None:
    def measure(how: str) -> list[int]:
        command = [sys.executable, "-c", TRAINING_STEPS, how]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout
        return [int(word) for word in printed.split()]

    (faults, resident), (usual_faults, usual_resident) = measure("kept"), measure("as it is")
    assert faults < usual_faults / 4
    assert resident < usual_resident + 2**26


MEASURE = """
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from serving.image.preprocess import Preprocess

data = Path(sys.argv[1]).read_bytes()
before = getrusage(RUSAGE_SELF).ru_maxrss
Preprocess().canvas(data)
print(getrusage(RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("format_", "options", "bytes_per_pixel"),
    [
        ("PNG", {}, 9),  # four in Pillow and three in RGB; three and three while it is resized
        ("WEBP", {"lossless": True, "method": 0}, 18),  # four in Pillow, four in its buffer, eight in libwebp
    ],
)
def test_a_large_image_needs_no_more_memory_than_its_decoder(
    tmp_path: Path, format_: str, options: dict[str, object], bytes_per_pixel: int
) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    side = 4000
    file = tmp_path / "large"
    image = Image.new("RGBA", (side, side), (200, 30, 30, 99))
    file.write_bytes(encoded(image, format_, exif=exif, **options))

    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )

    assert int(measured.stdout) * 1024 < bytes_per_pixel * side * side


def test_importing_the_decoder_changes_no_process_wide_setting() -> None:
    program = (
        "import numpy, simplejpeg, warnings, PIL.Image\n"
        "before = PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters)\n"
        "import serving.image.decode\n"
        "assert before == (PIL.Image.MAX_IMAGE_PIXELS, warnings.filters)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
