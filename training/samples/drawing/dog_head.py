"""Paints heads of dogs about (0, 0), about two units wide."""

from dataclasses import replace

import numpy as np

from training.samples.drawing.canvas import Canvas, Colour, curve, mirrored, mixed, oval, points
from training.samples.drawing.coat import BLACK, PINK, TONGUE, WHITE, paint_fur
from training.samples.drawing.sitter import Sitter

GLEAM: Colour = (150, 150, 154)

FRONT = mirrored(points("0,-0.92 0.48,-0.86 0.8,-0.45 0.84,0.1 0.66,0.6 0.4,0.92 0,1"))
MUZZLE = mirrored(points("0,-0.38 0.28,-0.28 0.42,0.06 0.5,0.32 0.28,0.45 0,0.36"))
NOSE = mirrored(points("0,-0.16 0.22,-0.12 0.24,0.02 0.1,0.14 0,0.17"))
MOUTH = mirrored(points("0,0.7 0.3,0.72 0.2,1.05 0,1.14"))
TONGUE_FRONT = mirrored(points("0,0.78 0.17,0.8 0.19,1.2 0,1.36"))
SKULL_IN_PROFILE = points("0.2,0.7 -0.4,0.72 -0.82,0.3 -0.78,-0.4 -0.2,-0.8 0.3,-0.72 0.56,-0.36")
SNOUT_IN_PROFILE = points("-0.15,-0.18 0.02,0.1 -0.1,0.42")  # from the tip of the snout
TONGUE_IN_PROFILE = points("-0.55,0.4 -0.2,0.35 -0.18,0.8 -0.36,0.92 -0.52,0.75")  # from the tip of the snout
FLOPPY_EAR = points("-0.15,-0.1 0.25,-0.14 0.5,0.2 0.62,0.78 0.42,1.16 0.16,0.9 0.1,0.38")
ERECT_EAR = points("-0.3,0 -0.16,-0.5 0.12,-0.95 0.32,-0.6 0.36,0.25")
INNER_EAR = points("-0.14,0 -0.04,-0.4 0.11,-0.72 0.22,-0.4 0.24,0.1")
FOLDED_EAR = points("-0.3,0.05 -0.2,-0.4 0.2,-0.55 0.45,-0.2 0.36,0.25")
FOLD = points("-0.22,-0.42 0.22,-0.58 0.5,-0.25 0.42,0.12 0.2,0.02 0,-0.28")


def paint_dog_front(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    """The head from the front, the nose turned aside by `sitter.turn`."""
    coat, turn = sitter.coat, sitter.turn * 1.2  # a long snout moves further
    if sitter.ears != "floppy":
        for side in (-1, 1):
            _paint_upright_ear(canvas.placed((side * 0.55 - turn * 0.25, -0.6), flip=side < 0), sitter, rng)
    head = curve(FRONT * (sitter.width, 1))
    paint_fur(canvas, head, coat, rng, "head")
    with canvas.inside(head) as face:
        if coat.pattern == "points":
            face.fill(oval((turn, 0.5), (0.7, 0.7)), coat.mark)
        if coat.pattern == "two-tone":
            blaze = points("-0.12,-1.1 0.12,-1.1 0.2,0.1 0.7,1.1 -0.7,1.1 -0.2,0.1")
            face.fill(curve(blaze + (turn * 0.7, 0)), coat.pale)
        if coat.pattern == "tabby":
            for x in (-0.2, 0.0, 0.2):
                face.line(np.array([(x + turn * 0.4, -1.0), (x * 0.7 + turn * 0.5, -0.5)]), coat.mark, 0.08)
    if sitter.ears == "floppy":
        for side in (-1, 1):
            _paint_floppy_ear(canvas.placed((side * 0.62 - turn * 0.2, -0.68), flip=side < 0), sitter, rng)
    for side in (-1, 1):
        eye = canvas.placed((side * 0.36 + turn * 0.7, -0.18))
        _paint_eye(eye, sitter, narrow=1 - side * turn * 0.4)
        eye.line(curve(points("-0.14,-0.26 0,-0.33 0.14,-0.27"), closed=False), (*coat.edge, 150), 0.05)
    _paint_snout(canvas.placed((turn, 0)), sitter)


def paint_dog_profile(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    """The head from the side, looking to the right."""
    coat, tip_x = sitter.coat, 0.72 + 0.7 * sitter.snout
    if sitter.ears != "floppy":
        _paint_upright_ear(canvas.placed((-0.1, -0.62), angle_deg=4), sitter, rng)
    if sitter.mouth_open:
        canvas.shape(curve(TONGUE_IN_PROFILE + (tip_x, 0)), TONGUE, mixed(TONGUE, BLACK, 0.4), 0.03)
    jaw = points("0.62,0.54")
    head = curve(np.concatenate([SKULL_IN_PROFILE, SNOUT_IN_PROFILE + (tip_x, 0), jaw]))
    paint_fur(canvas, head, coat, rng, "head")
    with canvas.inside(head) as face:
        face.fill(oval((tip_x, 0.25), (tip_x - 0.5, 0.36)), coat.muzzle)
    canvas.fill(oval((tip_x - 0.02, -0.06), (0.17, 0.14), 20), BLACK)
    lips = np.array([(tip_x - 0.05, 0.24), (tip_x - 0.3, 0.34), (0.55, 0.26)])
    canvas.line(curve(lips, closed=False), coat.edge, 0.04)
    _paint_eye(canvas.placed((0.3, -0.24)), sitter, narrow=0.85)
    if sitter.ears == "floppy":
        _paint_floppy_ear(canvas.placed((-0.1, -0.55), angle_deg=14, flip=True), sitter, rng)


def _paint_snout(canvas: Canvas, sitter: Sitter) -> None:
    """Muzzle, nose, mouth and, where the mouth is open, the tongue."""
    coat, snout = sitter.coat, sitter.snout
    if sitter.mouth_open:
        canvas.shape(curve(MOUTH), mixed(TONGUE, BLACK, 0.7), coat.edge, 0.04)
        canvas.shape(curve(TONGUE_FRONT), TONGUE, mixed(TONGUE, BLACK, 0.4), 0.03)
        canvas.line(points("0,0.85 0,1.2"), mixed(TONGUE, BLACK, 0.3), 0.03)
    muzzle = curve(MUZZLE * (0.85 + 0.15 * snout, snout) + (0, 0.45))
    canvas.shape(muzzle, coat.muzzle, mixed(coat.muzzle, BLACK, 0.35), 0.03)
    nose_y, lip_y = 0.45 - 0.2 * snout, 0.45 + 0.22 * snout
    canvas.fill(curve(NOSE + (0, nose_y)), BLACK)
    canvas.fill(oval((-0.08, nose_y - 0.07), (0.06, 0.03)), GLEAM)
    canvas.line(np.array([(0, nose_y + 0.15), (0, lip_y)]), coat.edge, 0.04)
    lips = points("-0.42,-0.06 -0.2,0.1 0,0 0.2,0.1 0.42,-0.06") + (0, lip_y)
    canvas.line(curve(lips, closed=False), coat.edge, 0.04)


def _paint_floppy_ear(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    coat = sitter.coat
    pattern = "points" if coat.pattern == "points" else "plain"
    darker = replace(coat, base=mixed(coat.base, coat.mark, 0.6), pattern=pattern)
    paint_fur(canvas, curve(FLOPPY_EAR * (1, sitter.ear_size)), darker, rng, "ear", shade=0.12)


def _paint_upright_ear(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    size = (1, sitter.ear_size)
    if sitter.ears == "erect":
        paint_fur(canvas, curve(ERECT_EAR * size), sitter.coat, rng, "ear")
        canvas.fill(curve(INNER_EAR * size), mixed(PINK, sitter.coat.ground("ear"), 0.55))
    else:
        paint_fur(canvas, curve(FOLDED_EAR * size), sitter.coat, rng, "ear")
        paint_fur(canvas, curve(FOLD * size), sitter.coat, rng, "ear", shade=0.2)


def _paint_eye(canvas: Canvas, sitter: Sitter, narrow: float) -> None:
    canvas.shape(oval((0, 0), (0.15 * narrow, 0.155)), sitter.eye, BLACK, 0.055)
    pupil = 0.075 + 0.03 * sitter.pupil
    canvas.fill(oval((0, 0.01), (pupil * narrow, pupil + 0.01)), BLACK)
    canvas.fill(oval((0.045, -0.055), (0.04, 0.04)), WHITE)
