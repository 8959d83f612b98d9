"""Shifted copies of images: what changes between two cameras, but not what an image shows.

They stand in for images of another origin, of which a data set has none: a network that has learned what is particular
to its training images makes more mistakes on them. The four kinds are those of common corruptions (Hendrycks &
Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations") that cameras,
messengers and web sites cause most.
"""

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Shift = Literal["blur", "jpeg", "colour", "small"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)

BLUR_PART = 1 / 112
"""Standard deviation of the blur as a part of the side: 2 pixels of 224."""
JPEG_QUALITY = 10
MAX_CAST = 0.3
"""Each channel is multiplied by 1 - 0.3 to 1 + 0.3."""
SMALL_PART = 4
"""The side is reduced to a fourth, and enlarged again."""


def shifted(view_SSC: NDArray[np.uint8], kind: Shift, seed: int) -> NDArray[np.uint8]:
    """A copy of uint8 `[S, S, 3]`, of the same size; only `colour` depends on the seed."""
    image = Image.fromarray(view_SSC)
    side = image.width
    match kind:
        case "blur":
            return np.array(image.filter(ImageFilter.GaussianBlur(side * BLUR_PART)))
        case "jpeg":
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=JPEG_QUALITY)
            return np.array(Image.open(buffer))
        case "colour":
            gains_C = np.random.default_rng(seed).uniform(1 - MAX_CAST, 1 + MAX_CAST, 3)
            return np.clip(np.rint(view_SSC * gains_C), 0, 255).astype(np.uint8)
        case "small":
            small = image.resize((max(side // SMALL_PART, 1),) * 2, Image.Resampling.BICUBIC)
            return np.array(small.resize(image.size, Image.Resampling.BICUBIC))
