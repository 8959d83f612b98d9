"""Random backdrops, and light and noise for an image."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.samples.drawing.canvas import Colour, mixed

WALLS: tuple[Colour, ...] = (
    (226, 214, 190), (188, 206, 214), (214, 190, 196), (176, 196, 172), (232, 232, 228), (120, 138, 158),
    (158, 124, 104), (98, 116, 108), (206, 178, 128), (146, 138, 172), (72, 82, 96), (190, 112, 92),
)  # fmt: skip
GRASSES: tuple[Colour, ...] = ((118, 156, 84), (92, 134, 72), (150, 164, 92), (206, 190, 140), (228, 232, 238))
SNOW: Colour = (250, 250, 246)
BARK: Colour = (84, 62, 48)
LEAF: Colour = (26, 66, 34)
SKIES: tuple[Colour, ...] = ((150, 192, 226), (188, 208, 224), (236, 204, 176), (128, 150, 186), (206, 214, 214))


def backdrop(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random backdrop, RGB, of the given (width, height) in pixels, more or less out of focus."""
    paint, _ = _BACKDROPS[int(rng.choice(len(_BACKDROPS), p=[weight for _, weight in _BACKDROPS]))]
    image = paint(size, rng)
    return image.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 0.008)) * max(size)))


def lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image under a random light: brighter on one side, warmer or colder, with a little noise and blur."""
    width, height = image.size
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.3))))
    pixels_HWC = np.asarray(image, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    light_HW1 = (rng.uniform(0.72, 1.12) * (1 + rng.uniform(0, 0.25) * (across + down)))[..., None]
    tint_C = 1 + rng.uniform(-0.08, 0.08) * np.array([1.0, 0.1, -1.0])
    noise_HW1 = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1, 7)
    lit_HWC = pixels_HWC * (light_HW1 * tint_C).astype(np.float32) + noise_HW1.astype(np.float32)
    return Image.fromarray(np.clip(lit_HWC, 0, 255).astype(np.uint8))


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    """One of the colours, slightly changed."""
    chosen = np.array(colours[int(rng.integers(len(colours)))]) + rng.integers(-14, 15, size=3)
    return tuple(int(channel) for channel in np.clip(chosen, 0, 255))


def _plain(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", size, _pick(WALLS, rng))


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    ends = np.array([[_pick(WALLS, rng), _pick(WALLS, rng)]], dtype=np.uint8)
    strip = Image.fromarray(ends if rng.random() < 0.5 else ends.transpose(1, 0, 2))
    return strip.resize(size, Image.Resampling.BICUBIC)


def _meadow(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    sky, grass = _pick(SKIES, rng), _pick(GRASSES, rng)
    image = Image.new("RGB", size, sky)
    brush = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.35, 0.7))
    for _ in range(int(rng.integers(0, 4))):  # clouds
        x, y, r = rng.uniform(0, width), rng.uniform(0, horizon * 0.7), rng.uniform(0.04, 0.1) * width
        for puff in (x - r, x, x + r, x + 2 * r):
            brush.ellipse((puff - r, y - r * 0.6, puff + r, y + r * 0.5), fill=mixed(sky, SNOW, 0.7))
    for _ in range(int(rng.integers(0, 3))):  # hills
        x, rx, ry = rng.uniform(0, width), rng.uniform(0.3, 0.7) * width, rng.uniform(0.05, 0.25) * height
        hazy = mixed(grass, sky, rng.uniform(0.2, 0.6))
        brush.ellipse((x - rx, horizon - ry, x + rx, horizon + ry), fill=hazy)
    brush.rectangle((0, horizon, width, height), fill=grass)
    for _ in range(int(rng.integers(0, 4))):  # trees
        x, r = rng.uniform(0, width), rng.uniform(0.05, 0.14) * height
        brush.rectangle((x - r * 0.15, horizon - r * 2, x + r * 0.15, horizon + r * 0.2), fill=BARK)
        brush.ellipse((x - r, horizon - r * 3, x + r, horizon - r), fill=mixed(grass, LEAF, 0.5))
    for _ in range(160):  # blades of grass, longer where they are nearer
        x, y = rng.uniform(0, width), rng.uniform(horizon, height)
        length = (y - horizon) / (height - horizon) * 0.05 * height + 2
        colour = mixed(grass, LEAF if rng.random() < 0.6 else SNOW, 0.25)
        lean = rng.uniform(-0.4, 0.4) * length
        brush.line((x, y, x + lean, y - length), fill=colour, width=max(1, int(length / 8)))
    return image


def _room(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    wall, floor = _pick(WALLS, rng), _pick(WALLS, rng)
    image = Image.new("RGB", size, wall)
    brush = ImageDraw.Draw(image)
    corner = int(height * rng.uniform(0.5, 0.78))
    brush.rectangle((0, corner, width, height), fill=floor)
    brush.rectangle((0, corner - 0.02 * height, width, corner), fill=mixed(wall, SNOW, 0.5))
    if rng.random() < 0.5:  # floorboards that run away from us
        for x in np.linspace(-width, 2 * width, 16):
            far_x = width / 2 + (x - width / 2) * 0.4
            brush.line((x, height, far_x, corner), fill=mixed(floor, BARK, 0.3), width=2)
    if rng.random() < 0.7:  # a window, or an image on the wall
        x, y = rng.uniform(-0.05, 0.75) * width, rng.uniform(0.03, 0.12) * height
        w, h = rng.uniform(0.2, 0.4) * width, rng.uniform(0.2, 0.38) * height
        frame, frame_width = mixed(wall, BARK, 0.7), max(2, width // 70)
        brush.rectangle((x, y, x + w, y + h), fill=_pick(SKIES, rng), outline=frame, width=frame_width)
        if rng.random() < 0.6:
            brush.line((x + w / 2, y, x + w / 2, y + h), fill=frame, width=frame_width)
    if rng.random() < 0.4:  # a sofa
        x, sofa, radius = rng.uniform(-0.3, 0.6) * width, _pick(WALLS, rng), 0.05 * height
        back = (x, corner - 0.25 * height, x + 0.7 * width, corner + 0.1 * height)
        seat = (x - 0.04 * width, corner - 0.05 * height, x + 0.74 * width, corner + 0.12 * height)
        brush.rounded_rectangle(back, radius, fill=sofa)
        brush.rounded_rectangle(seat, radius, fill=mixed(sofa, BARK, 0.2))
    if rng.random() < 0.4:  # a rug
        rug = (0.1 * width, corner + 0.05 * height, 0.95 * width, height)
        brush.ellipse(rug, fill=_pick(WALLS, rng))
    return image


def _wallpaper(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    ground = _pick(WALLS, rng)
    figure = mixed(ground, _pick(WALLS, rng), 0.6)
    image = Image.new("RGB", size, ground)
    brush = ImageDraw.Draw(image)
    step = int(rng.uniform(0.08, 0.2) * max(size))
    if rng.random() < 0.5:  # stripes
        for x in range(0, width, step):
            brush.rectangle((x, 0, x + step // 2, height), fill=figure)
        return image
    for row, y in enumerate(range(0, height + step, step)):  # dots
        for x in range(row % 2 * step // 2, width + step, step):
            brush.circle((x, y), step / 4, fill=figure)
    return image


def _mottled(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    cells = int(rng.integers(3, 14))
    light = rng.normal(0, rng.uniform(8, 34), size=(cells, cells, 1))
    tint = rng.normal(0, 9, size=(cells, cells, 3))
    patches = np.clip(np.array(_pick(WALLS, rng)) + light + tint, 0, 255)
    return Image.fromarray(patches.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


_BACKDROPS: tuple[tuple[Callable[[tuple[int, int], np.random.Generator], Image.Image], float], ...] = (
    (_plain, 0.1),
    (_gradient, 0.12),
    (_meadow, 0.28),
    (_room, 0.28),
    (_wallpaper, 0.1),
    (_mottled, 0.12),
)  # painter, probability
