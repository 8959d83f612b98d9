"""Pictures at full size become upright RGB band by band: the same pixels, and half of the memory."""

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import upright
from serving.decode import Limits, decode
from tests.commands import ROOT
from tests.golden.draw import encoded, picture

PICTURE = picture()
GREY = PICTURE.convert("L")
KINDS = {
    "RGB": (PICTURE, {}),
    "RGBA": (PICTURE.copy(), {}),
    "LA": (GREY.copy(), {}),
    "grey": (GREY, {}),
    "1-bit": (PICTURE.convert("1"), {}),
    "palette": (PICTURE.quantize(16), {}),
    "palette with a transparent colour": (PICTURE.quantize(16), {"transparency": 3}),
    "grey with a transparent shade": (GREY, {"transparency": GREY.getpixel((9, 9))}),
    "16-bit": (Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), {}),
}
for name in ("RGBA", "LA"):
    KINDS[name][0].putalpha(GREY)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_bands_have_the_pixels_that_the_picture_has(
    kind: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, options = KINDS[kind]
    exif = Image.Exif()
    exif[upright.EXIF_ORIENTATION] = orientation
    data = encoded(image, "PNG", exif=exif, **options)
    whole = decode(data)
    monkeypatch.setattr(upright, "BAND_PIXELS", 7 * PICTURE.width + 5)  # the last band is not a whole one
    np.testing.assert_array_equal(decode(data), whole)


MEASURE = """
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from serving.preprocess import Preprocess

data = Path(sys.argv[1]).read_bytes()
before = getrusage(RUSAGE_SELF).ru_maxrss
Preprocess().canvas(data)
print(getrusage(RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_picture_takes_its_pixels_twice_and_no_more(tmp_path: Path) -> None:
    """Four bytes each in Pillow, three in RGB; and as it was resized, three and three."""
    exif = Image.Exif()
    exif[upright.EXIF_ORIENTATION] = 6
    side = 4000
    file = tmp_path / "large.png"
    file.write_bytes(encoded(Image.new("RGBA", (side, side), (200, 30, 30, 99)), "PNG", exif=exif))

    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert int(measured.stdout) * 1024 < 9 * side * side


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_no_other_large_picture_is_decoded_until_one_lets_go_of_its_room(format_: str) -> None:
    data = encoded(PICTURE, format_)
    limits = Limits(max_pixels=PICTURE.width * PICTURE.height)
    other = threading.Thread(target=decode, args=(data,), kwargs={"limits": limits})
    with ExitStack() as room:
        decode(data, limits=limits, room=room)
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join(60)
    assert not other.is_alive()
