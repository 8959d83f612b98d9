"""Drawings of cats and dogs.

A network trained on them does not work on photographs. Colours, fur patterns, backdrops, poses and sizes of both kinds
come from the same distributions, so that only the animal's shape tells them apart.
"""

import numpy as np
from PIL import Image

from training.samples.drawing.bodies import POSES, Pose
from training.samples.drawing.canvas import Canvas
from training.samples.drawing.scenery import backdrop, lit
from training.samples.drawing.sitter import Kind, Sitter

__all__ = ["Kind", "draw"]

SHORT_SIDE_PX = (240, 480)
LONGEST_RATIO = 4 / 3
OVERSAMPLING = 2


def draw(kind: Kind, rng: np.random.Generator) -> Image.Image:
    """Draw a cat or a dog, RGB, with sides of 240 to 640 px; everything random comes from `rng`."""
    short_px = int(rng.integers(*SHORT_SIDE_PX, endpoint=True))
    long_px = round(short_px * rng.uniform(1, LONGEST_RATIO))
    size_px = (long_px, short_px) if rng.random() < 0.6 else (short_px, long_px)
    scene = backdrop(size_px, rng)
    scene = scene.resize((size_px[0] * OVERSAMPLING, size_px[1] * OVERSAMPLING), Image.Resampling.BILINEAR)
    pose, _ = POSES[int(rng.choice(len(POSES), p=[weight for _, weight in POSES]))]
    pose.paint(_placed(scene, pose, rng), Sitter.random(kind, rng), rng)
    return lit(scene.reduce(OVERSAMPLING), rng)


def _placed(scene: Image.Image, pose: Pose, rng: np.random.Generator) -> Canvas:
    """A canvas on which the pose fills a random part of the scene, at a random place, facing either way."""
    size_px = np.array(scene.size, dtype=np.float64)
    low, high = np.array(pose.low), np.array(pose.high)
    fits = float((size_px / (high - low)).min())
    px_per_unit = fits * rng.uniform(0.65, 1.0)
    facing = 1 if rng.random() < 0.5 else -1
    spare_px = size_px - px_per_unit * (high - low)
    left_px = spare_px[0] * rng.uniform(0, 1)
    top_px = spare_px[1] * (rng.uniform(0.6, 1.0) if pose.stands else 1.0)
    edge_x = low[0] if facing == 1 else -high[0]
    origin_px = np.array([left_px - edge_x * px_per_unit, top_px - low[1] * px_per_unit])
    return Canvas(scene, np.diag([facing * px_per_unit, px_per_unit]), origin_px)
