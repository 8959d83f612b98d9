"""Random backdrops, and random light for a finished image."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.samples.canvas import Colour

WALLS: tuple[Colour, ...] = (
    (226, 214, 190), (188, 206, 214), (214, 190, 196), (176, 196, 172), (232, 232, 228), (120, 138, 158),
    (158, 124, 104), (98, 116, 108), (206, 178, 128), (146, 138, 172), (72, 82, 96), (190, 112, 92),
)  # fmt: skip
KINDS = ("gradient", "horizon", "stripes", "mottled")


def backdrop(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random backdrop, RGB, of the given (width, height) in pixels, more or less out of focus."""
    width, height = size
    first, second = _pick_colour(rng), _pick_colour(rng)
    match rng.choice(KINDS):
        case "gradient":
            ends = np.array([[first, second]], dtype=np.uint8)
            strip = Image.fromarray(ends if rng.random() < 0.5 else ends.transpose(1, 0, 2))
            image = strip.resize(size, Image.Resampling.BICUBIC)
        case "horizon":
            image = Image.new("RGB", size, first)
            horizon_px = height * rng.uniform(0.35, 0.75)
            ImageDraw.Draw(image).rectangle((0, horizon_px, width, height), fill=second)
        case "stripes":
            image = Image.new("RGB", size, first)
            step_px = int(rng.uniform(0.08, 0.2) * max(size))
            for x in range(0, width, step_px):
                ImageDraw.Draw(image).rectangle((x, 0, x + step_px // 2, height), fill=second)
        case _:
            cells = int(rng.integers(3, 14))
            patches = np.array(first) + rng.normal(0, rng.uniform(8, 34), size=(cells, cells, 3))
            small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
            image = small.resize(size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 0.008)) * max(size)))


def relight(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image under a random light: brighter on one side, warmer or colder, with a little noise and blur."""
    width, height = image.size
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.5))))
    pixels_HWC = np.asarray(image, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    light_HW1 = (rng.uniform(0.72, 1.12) * (1 + rng.uniform(0, 0.25) * (across + down)))[..., None]
    tint_C = 1 + rng.uniform(-0.08, 0.08) * np.array([1.0, 0.1, -1.0])
    noise_HW1 = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1, 7)
    lit_HWC = pixels_HWC * (light_HW1 * tint_C).astype(np.float32) + noise_HW1.astype(np.float32)
    return Image.fromarray(np.clip(lit_HWC, 0, 255).astype(np.uint8))


def _pick_colour(rng: np.random.Generator) -> Colour:
    """One of the colours, slightly changed."""
    chosen = np.array(WALLS[int(rng.integers(len(WALLS)))]) + rng.integers(-14, 15, size=3)
    return tuple(int(channel) for channel in np.clip(chosen, 0, 255))
