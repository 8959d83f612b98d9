"""Training views of a canvas, each a little different: fast.ai 0.7's two presets, and a stronger one.

`side-on` mirrors; `top-down` also turns by quarters. Both turn by up to 10 degrees and zoom up to 1.1 with a
reflected border, change brightness and contrast a little, and crop at random. `varied` is `side-on` for one half of the
views; the others vary as images from several cameras and photographers do. Its changes are not those of
`training.data.shifts`, which measure what training has not seen.
"""

from collections.abc import Callable
from math import ceil, cos, radians, sin
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from serving.image.views import make_views
from training.data.shifts import SHIFTS, shifted
from training.recipes.stage import Augment

MAX_DEGREES = 10.0
MAX_ZOOM = 1.1
PROBABILITY = 0.75
"""Probability of turning, and of zooming."""
LIGHTING = 0.05
"""Brightness and contrast are multiplied by 1 - 0.05 to 1 + 0.05."""
MIN_CROP = 0.6
"""Minimum size of a crop by `varied`: a square with at least this part of the canvas's side."""
VARIED_LIGHT, VARIED_COLOUR, VARIED_NOISE = 0.3, 1.5, 12.0
"""Brightness and contrast change by up to 30%, colourfulness lies between 0 (grey) and 1.5; standard deviation of the
noise, of 255, in half of the views."""
SHEET_SIDE = 4
"""Tiles along a side of a contact sheet."""
EVERY = 4
"""Every fourth pixel along a side counts towards an image's mean brightness."""

Views = Augment | Literal["shifted"]
"""How an image is changed: augmented, or shifted as in `training.data.shifts`, where steps are compared."""

View = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""uint8 `[S, S, 3]` and a seed -> uint8 `[crop, crop, 3]`; safe to call from several threads."""


def augmentation(kind: Views, crop: int) -> View:
    """The views of a preset, which depend on the seed alone; `none` is view 0, as in validation.

    `shifted` is view 0 with one of the shifts, chosen by the seed.
    """
    if kind == "none":
        return lambda canvas_SSC, seed: make_views(canvas_SSC, crop)[0]
    if kind == "shifted":
        return lambda canvas_SSC, seed: shifted(make_views(canvas_SSC, crop)[0], SHIFTS[seed % len(SHIFTS)], seed)

    def view(canvas_SSC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        if kind == "varied":
            rng = np.random.default_rng(seed)
            if rng.random() < 0.5:
                return _varied(canvas_SSC, crop, rng)
        params = _draw_params(seed, quarters=kind == "top-down")
        turned_SSC = np.rot90(canvas_SSC, params["quarters"])
        lit = _lighting(turned_SSC, params["brightness"], params["contrast"])
        return np.array(_transform(turned_SSC, crop, params).point(lit))

    return view


def contact_sheet(canvas_SSC: NDArray[np.uint8], kind: Augment, crop: int, seed: int) -> Image.Image:
    """One image augmented sixteen times, four by four."""
    view = augmentation(kind, crop)
    sheet = Image.new("RGB", (SHEET_SIDE * crop, SHEET_SIDE * crop))
    for index in range(SHEET_SIDE**2):
        tile = Image.fromarray(view(canvas_SSC, seed + index))
        sheet.paste(tile, (index % SHEET_SIDE * crop, index // SHEET_SIDE * crop))
    return sheet


def _varied(canvas_SSC: NDArray[np.uint8], crop: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop, resized, mirrored half of the time, in another light, and noisy half of the time."""
    canvas_side = canvas_SSC.shape[0]
    side = int(canvas_side * rng.uniform(MIN_CROP, 1))
    left, top = rng.integers(0, canvas_side - side + 1, 2).tolist()
    image = Image.fromarray(np.ascontiguousarray(canvas_SSC[top : top + side, left : left + side]))
    image = image.resize((crop, crop), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(1 - VARIED_LIGHT, 1 + VARIED_LIGHT))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(1 - VARIED_LIGHT, 1 + VARIED_LIGHT))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0, VARIED_COLOUR))
    pixels_SSC = np.array(image)
    if rng.random() < 0.5:
        noisy_SSC = pixels_SSC + rng.normal(0, rng.uniform(0, VARIED_NOISE), pixels_SSC.shape)
        pixels_SSC = np.clip(np.rint(noisy_SSC), 0, 255).astype(np.uint8)
    return pixels_SSC


def _draw_params(seed: int, *, quarters: bool) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    turn, zoom, degrees, scale, x, y, brightness, contrast = torch.rand(8, generator=random).tolist()
    return {
        "degrees": (2 * degrees - 1) * MAX_DEGREES if turn < PROBABILITY else 0.0,
        "zoom": 1 + scale * (MAX_ZOOM - 1) if zoom < PROBABILITY else 1.0,
        "corner": (x, y),
        "mirror": bool(torch.rand((), generator=random) < 0.5),
        "quarters": int(torch.randint(4, (), generator=random)) if quarters else 0,
        "brightness": 1 + (2 * brightness - 1) * LIGHTING,
        "contrast": 1 + (2 * contrast - 1) * LIGHTING,
    }


def _transform(canvas_SSC: NDArray[np.uint8], crop: int, params: dict[str, Any]) -> Image.Image:
    """Turn, zoom, crop and mirror, in one resampling."""
    side = canvas_SSC.shape[0]
    left, top = (int(part * (side - crop + 1)) for part in params["corner"])
    if params["degrees"] == 0 and params["zoom"] == 1:
        view_HWC = canvas_SSC[top : top + crop, left : left + crop]
        return Image.fromarray(np.ascontiguousarray(view_HWC[:, ::-1] if params["mirror"] else view_HWC))
    turn = radians(params["degrees"])
    # Output (x, y), measured from the canvas's centre, lies at A (x, y) + centre in the canvas.
    a, b = cos(turn) / params["zoom"], sin(turn) / params["zoom"]
    border = ceil(abs(b) * side / 2) + 1  # as far as a turned view can reach beyond the canvas
    sides = ((border, border), (border, border), (0, 0))
    reflected = Image.fromarray(np.pad(canvas_SSC, sides, mode="reflect"))
    x, y = left - side / 2, top - side / 2
    step = -1 if params["mirror"] else 1
    x += crop if params["mirror"] else 0
    centre = side / 2 + border
    matrix = (a * step, b, a * x + b * y + centre, -b * step, a, -b * x + a * y + centre)
    return reflected.transform((crop, crop), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _lighting(canvas_SSC: NDArray[np.uint8], brightness: float, contrast: float) -> list[int]:
    """A lookup table for each channel's 256 values: brightness about 0, then contrast about the image's mean."""
    mean = brightness * float(canvas_SSC[::EVERY, ::EVERY].mean())
    values = contrast * (brightness * np.arange(256) - mean) + mean
    table: list[int] = np.clip(np.rint(values), 0, 255).astype(int).tolist()
    return table * 3
