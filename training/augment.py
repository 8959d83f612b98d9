"""A canvas in; a training view of it, a little different each time, out: fast.ai 0.7's two presets.

Photos taken from the side are mirrored; photos taken from above are also turned by quarters and mirrored at will.
Both are turned by up to 10 degrees and zoomed up to 1.1 with a reflected border, lit a little differently, and
cropped at random.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from serving.views import look
from training.stage import Augment

MAX_DEGREES = 10.0
MAX_ZOOM = 1.1
PROBABILITY = 0.75
"""Of turning, and of zooming."""
LIGHTING = 0.05
"""Brightness and contrast are multiplied by 1 - 0.05 to 1 + 0.05."""
CONTACT_SHEET = 16

View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""uint8 `[S, S, 3]` -> uint8 `[crop, crop, 3]`; draws from torch's random numbers."""


class TurnAndZoom(v2.Transform):  # type: ignore[misc]
    """Turn and zoom about the centre in one resampling, with a reflected border."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        turn, zoom, degrees, scale = torch.rand(4).tolist()
        return {
            "degrees": (2 * degrees - 1) * MAX_DEGREES if turn < PROBABILITY else 0.0,
            "zoom": 1 + scale * (MAX_ZOOM - 1) if zoom < PROBABILITY else 1.0,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if params["degrees"] == 0 and params["zoom"] == 1:
            return inpt
        side = inpt.width
        border = side // 8  # a turn by 10 degrees reaches 8% of the side beyond it
        padded = functional.pad(inpt, [border], padding_mode="reflect")
        turned = functional.affine(
            padded,
            angle=params["degrees"],
            translate=[0, 0],
            scale=params["zoom"],
            shear=[0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        return functional.center_crop(turned, [side])


class QuarterTurn(v2.Transform):  # type: ignore[misc]
    """Turn by 0, 90, 180 or 270 degrees: with mirroring, the eight symmetries of a square."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"quarters": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        quarter_turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        turn = quarter_turns[params["quarters"]]
        return inpt if turn is None else inpt.transpose(turn)


def augmentation(kind: Augment, crop: int) -> View:
    """The transform of a preset; `none` is view 0, as in validation."""
    if kind == "none":
        return lambda canvas_SSC: look(canvas_SSC, crop)[0]
    quarter = [QuarterTurn()] if kind == "top-down" else []
    transform = v2.Compose(
        [
            *quarter,
            TurnAndZoom(),
            v2.RandomCrop(crop),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=LIGHTING, contrast=LIGHTING),
        ]
    )

    def view(canvas_SSC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(transform(Image.fromarray(canvas_SSC)))

    return view


def seeded(view: View, canvas_SSC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A view that depends on the seed alone; the process's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return view(canvas_SSC)


def contact_sheet(canvas_SSC: NDArray[np.uint8], kind: Augment, crop: int, seed: int) -> Image.Image:
    """One photo augmented sixteen times, four by four."""
    view = augmentation(kind, crop)
    sheet = Image.new("RGB", (4 * crop, 4 * crop))
    for index in range(CONTACT_SHEET):
        tile = Image.fromarray(seeded(view, canvas_SSC, seed + index))
        sheet.paste(tile, (index % 4 * crop, index // 4 * crop))
    return sheet
