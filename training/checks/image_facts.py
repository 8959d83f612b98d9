"""Facts about each image that need its pixels: size, brightness, sharpness and a thumbnail.

They are kept in a store beside the activations, by content, so that a second check decodes only what changed.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import Limits, decode
from serving.system.cpus import available_cpus
from training.data.images import LabelledImage, or_reason
from training.data.shards import contents
from training.features.store import ActivationStore

FORMATS = ("unknown", "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("unknown", "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F")
"""Pillow's names; an image's fact is the place in these lists."""
THUMBNAIL = 32
"""Side of a thumbnail in pixels."""
SIDE = 192
"""Short side at which brightness and sharpness are measured; smaller images are not enlarged."""
RECORD = np.dtype(
    [
        ("width", "<i4"),
        ("height", "<i4"),
        ("bytes", "<i4"),
        ("format", "<i4"),
        ("mode", "<i4"),
        ("dark", "<f4"),
        ("bright", "<f4"),
        ("mean", "<f4"),
        ("blur", "<f4"),
        ("thumbnail", "u1", (THUMBNAIL, THUMBNAIL)),
    ]
)
"""Facts of one image. `width`, `height`: upright, in pixels. `dark`, `bright`: the 1st and 99th percentile of the luma,
0 to 255. `mean`: of the luma. `blur`: 0 (sharp) to 1, see `blur_effect`. `thumbnail`: luma, the whole image squeezed
into a square."""
BLUR_WINDOW = 9
LINE_STEP = 4
"""Sharpness is measured along every fourth row and column."""
CHUNK = 256
"""Images decoded between two writes to the store."""


def image_facts(
    images: Sequence[LabelledImage], cache: Path, on_progress: Callable[[int, int], None]
) -> NDArray[np.void]:
    """Look up or compute the facts of images, `RECORD` `[N]`; that of an image that cannot be decoded is zero.

    Args:
        cache: the folder whose store is used.
        on_progress: called with (images done, images to decode).
    """
    store = ActivationStore(cache / "facts-1", RECORD.itemsize // 4)
    keys = [image.sha256 for image in images]
    absent = store.find(keys) < 0
    missing = list({image.sha256: image for image, is_absent in zip(images, absent, strict=True) if is_absent}.values())
    if missing:
        on_progress(0, len(missing))
        readers = contents(missing)
        done = 0
        with ThreadPoolExecutor(available_cpus(), thread_name_prefix="facts") as pool:
            while chunk := list(islice(readers, CHUNK)):
                results = pool.map(lambda pair: or_reason(lambda: measure_image(pair[1](), pair[0].limits)), chunk)
                new: dict[bytes, NDArray[np.void]] = {}
                for (image, _), record in zip(chunk, results, strict=True):
                    if not isinstance(record, str):
                        new[image.sha256] = record
                    done += 1
                    on_progress(done, len(missing))
                if new:
                    store.append(list(new), np.stack(list(new.values())).view(np.float32).reshape(len(new), -1))
    rows_N = store.find(keys)
    known_N = rows_N >= 0
    records_N = np.zeros(len(images), RECORD)
    if known_N.any():
        records_N[known_N] = np.ascontiguousarray(store.rows[rows_N[known_N]]).view(RECORD)[:, 0]
    return records_N


def measure_image(data: bytes, limits: Limits) -> NDArray[np.void]:
    """The facts of one encoded image, one `RECORD`.

    Raises:
        ImageError: if it cannot be decoded.
    """
    pixels_HWC = decode(data, min_side=SIDE, limits=limits)
    height, width = pixels_HWC.shape[:2]
    image = Image.fromarray(pixels_HWC).convert("L")
    record = np.zeros((), RECORD)
    try:
        with Image.open(io.BytesIO(data)) as header:
            sides = sorted(header.size)
            record["format"], record["mode"] = _place(header.format, FORMATS), _place(header.mode, MODES)
    except Exception:  # Pillow raises errors of any kind; the pixels are known all the same
        sides = sorted((width, height))
    record["width"], record["height"] = sides if width <= height else sides[::-1]
    record["bytes"] = len(data)
    record["thumbnail"] = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    scale = SIDE / min(width, height)
    if scale < 1:
        image = image.resize((max(round(width * scale), 1), max(round(height * scale), 1)), Image.Resampling.BOX)
    luma_HW = np.asarray(image)[:1024, :1024]  # of a very long image, its beginning
    record["dark"], record["bright"] = np.percentile(luma_HW, (1, 99))
    record["mean"] = luma_HW.mean()
    record["blur"] = blur_effect(luma_HW)
    return record


def blur_effect(luma_HW: NDArray[np.uint8]) -> float:
    """How blurred an image is: 0 sharp, 1 blurred (Crete et al. 2007, "The Blur Effect", SPIE 6492).

    A blurred image hardly changes if it is blurred again: the measure is the part of the variation between neighbouring
    pixels that remains after a mean filter, the larger of both directions.
    """
    worst = 0.0
    for lines_HW in (luma_HW[:, ::LINE_STEP], luma_HW[::LINE_STEP].T):
        count = len(lines_HW)
        if count <= BLUR_WINDOW + 1:
            continue
        lines = np.ascontiguousarray(lines_HW, np.float32)
        total = np.cumsum(lines, 0, dtype=np.float32)  # exact: below 2^24
        total = np.concatenate([np.zeros_like(total[:1]), total])
        blurred = (total[BLUR_WINDOW:] - total[:-BLUR_WINDOW]) / BLUR_WINDOW
        half = BLUR_WINDOW // 2
        sharp = np.abs(np.diff(lines[half : count - half], axis=0))
        lost = np.maximum(sharp - np.abs(np.diff(blurred, axis=0)), 0)
        variation = float(sharp.sum())
        if variation > 0:
            worst = max(worst, 1 - float(lost.sum()) / variation)
    return worst


def _place(name: str | None, names: tuple[str, ...]) -> int:
    name = (name or "").split(";")[0] if name not in names else name
    return names.index(name) if name in names else 0
