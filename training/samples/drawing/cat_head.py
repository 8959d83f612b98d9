"""Paints heads of cats about (0, 0), about two units wide."""

import numpy as np

from training.samples.drawing.canvas import Canvas, Colour, curve, mirrored, mixed, oval, points, tapered
from training.samples.drawing.coat import BLACK, PINK, TONGUE, WHITE, paint_fur
from training.samples.drawing.sitter import Sitter

FRONT = mirrored(points("0,-0.8 0.5,-0.76 0.93,-0.35 1.1,0.2 0.8,0.62 0.4,0.82 0,0.86"))
PROFILE = points("-0.1,-0.82 0.38,-0.7 0.68,-0.25 0.92,0.1 0.98,0.34 0.75,0.56 0.3,0.74 -0.3,0.72 -0.8,0.3 -0.75,-0.4")
EAR = points("-0.34,0.05 -0.2,-0.35 0.18,-0.96 0.26,-0.96 0.36,-0.7 0.48,0.35")
INNER_EAR = points("-0.16,0 0.21,-0.74 0.36,0.2")
LIDS = points("-0.24,0.05 -0.02,-0.19 0.24,-0.05 0.02,0.17")


def paint_cat_front(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    """The head from the front, the nose turned aside by `sitter.turn`."""
    coat, turn = sitter.coat, sitter.turn
    for side in (-1, 1):
        _paint_ear(canvas.placed((side * 0.6 - turn * 0.3, -0.55), flip=side < 0), sitter, rng)
    head = curve(FRONT * (sitter.width, 1))
    paint_fur(canvas, head, coat, rng, "head")
    with canvas.inside(head) as face:
        _paint_face(face, sitter)
    for side in (-1, 1):
        eye = canvas.placed((side * 0.43 + turn * 0.7, -0.05), angle_deg=side * 4, flip=side < 0)
        _paint_eye(eye, sitter, narrow=1 - side * turn * 0.5)
    canvas.shape(oval((turn, 0.67), (0.2, 0.15)), mixed(coat.muzzle, BLACK, 0.1), coat.edge, 0.02)
    if sitter.mouth_open:
        canvas.shape(oval((turn, 0.62), (0.13, 0.16)), TONGUE, coat.edge, 0.03)
    for side in (-1, 1):
        canvas.fill(oval((side * 0.19 + turn, 0.48), (0.26, 0.19), side * 12), coat.muzzle)
    _paint_nose_and_mouth(canvas.placed((turn, 0.3)), coat.edge)
    for side in (-1, 1):
        _paint_whiskers(canvas.placed((side * 0.28 + turn, 0.46), flip=side < 0), sitter, rng)


def paint_cat_profile(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    """The head from the side, looking to the right."""
    coat = sitter.coat
    _paint_ear(canvas.placed((0.12, -0.62), angle_deg=6, scale=0.9), sitter, rng)
    _paint_ear(canvas.placed((-0.28, -0.55), angle_deg=-12, scale=0.9), sitter, rng)
    head = curve(PROFILE)
    paint_fur(canvas, head, coat, rng, "head")
    with canvas.inside(head) as face:
        if coat.pattern == "points":
            face.fill(oval((0.7, 0.15), (0.6, 0.55)), coat.mark)
        if coat.pattern == "tabby":
            for y in (0.05, 0.3):
                face.fill(tapered(np.array([(-0.6, y), (-0.2, y + 0.05), (0.15, y)]), 0.11, 0.02), coat.mark)
        face.fill(oval((0.78, 0.42), (0.34, 0.22), -10), coat.muzzle)
    _paint_eye(canvas.placed((0.36, -0.12)), sitter, narrow=0.75)
    canvas.shape(points("0.88,0.06 1,0.14 0.9,0.24"), PINK, coat.edge, 0.025)
    canvas.line(curve(points("0.92,0.26 0.82,0.42 0.58,0.42"), closed=False), coat.edge, 0.03)
    _paint_whiskers(canvas.placed((0.7, 0.36), angle_deg=14, flip=True), sitter, rng)


def _paint_ear(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    size = (1, sitter.ear_size)
    paint_fur(canvas, EAR * size, sitter.coat, rng, "ear")
    canvas.fill(INNER_EAR * size, mixed(PINK, sitter.coat.ground("ear"), 0.35))


def _paint_face(face: Canvas, sitter: Sitter) -> None:
    coat, turn = sitter.coat, sitter.turn
    if coat.pattern == "points":
        face.fill(oval((turn, 0.2), (0.62, 0.62)), coat.mark)
    if coat.pattern == "two-tone":
        blaze = points("0,-0.5 0.3,0.2 0.6,0.95 -0.6,0.95 -0.3,0.2")
        face.fill(curve(blaze + (turn, 0)), coat.pale)
    if coat.pattern == "tabby":
        for x, length in ((-0.34, 0.32), (-0.12, 0.42), (0.12, 0.42), (0.34, 0.32)):
            spine = np.array([(x + turn * 0.3, -0.9), (x * 0.9 + turn * 0.5, -0.8 + length)])
            face.fill(tapered(spine, 0.12, 0.03), coat.mark)
        for side in (-1, 1):
            for y in (0.15, 0.42):
                spine = np.array([(side * 1.2, y), (side * 0.68 + turn * 0.2, y + 0.02)])
                face.fill(tapered(spine, 0.1, 0.02), coat.mark)


def _paint_eye(canvas: Canvas, sitter: Sitter, narrow: float) -> None:
    lids = curve(LIDS * (narrow, 1))
    canvas.shape(lids, sitter.eye, BLACK, 0.06)
    with canvas.inside(lids) as between:
        between.fill(oval((0, 0), (0.035 + 0.08 * sitter.pupil, 0.2)), BLACK)
    canvas.fill(oval((0.06, -0.08), (0.04, 0.04)), WHITE)


def _paint_nose_and_mouth(canvas: Canvas, edge: Colour) -> None:
    canvas.shape(points("-0.11,-0.05 0.11,-0.05 0,0.08"), PINK, edge, 0.025)
    canvas.line(points("0,0.08 0,0.2"), edge, 0.03)
    canvas.line(curve(points("-0.25,0.22 -0.12,0.28 0,0.2 0.12,0.28 0.25,0.22"), closed=False), edge, 0.03)


def _paint_whiskers(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    colour = mixed(WHITE, BLACK, 0.6) if sum(sitter.coat.base) > 600 else WHITE
    length = rng.uniform(0.9, 1.2)
    for rise in (-0.22, 0.0, 0.2):
        path = np.array([(0, rise * 0.2), (0.5 * length, rise * 0.7 - 0.03), (length, rise * 1.3 + 0.06)])
        canvas.line(curve(path, closed=False), colour, 0.022)
