"""A PNG of a confusion matrix, drawn with Pillow, so that no plotting library is needed."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from serving.cli.tables import format_rate
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.files import replacing

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
INK: Color = (34, 38, 46)
FAINT: Color = (118, 124, 136)
GRID: Color = (223, 226, 232)
CORRECT: Color = (22, 84, 158)
"""Full shade of cells on the diagonal."""
INCORRECT: Color = (196, 66, 28)
"""Full shade of the other cells."""

SCALE = 2  # pixels for each unit of length, for high-resolution screens
MARGIN = 28 * SCALE
MATRIX_SIDE = 560 * SCALE
MAX_CELL = 130 * SCALE
MAX_CELL_WITHOUT_GRID = 8
MIN_CELL_WITH_NAME = 14 * SCALE
MIN_CELL_WITH_COUNT = 22 * SCALE
MIN_CELL_WITH_ZERO = 44 * SCALE
MIN_CELL_WITH_PERCENT = 70 * SCALE
MAX_NAMED_CLASSES = 120
"""With more classes the names would be too small, or the image too large."""
MAX_LABEL_WIDTH = 190 * SCALE


def plot_confusion_matrix(statistics: pb.ModelStatistics, path: Path) -> None:
    """Draw the confusion matrix: one row for each label, cells shaded by their share of the row.

    Raises:
        OSError: if the file cannot be written.
    """
    image = draw_confusion_matrix(statistics)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def draw_confusion_matrix(statistics: pb.ModelStatistics) -> Image.Image:
    """The image that `plot_confusion_matrix` writes."""
    count = len(statistics.classes)
    classes = statistics.classes if count <= MAX_NAMED_CLASSES else [""] * count
    least = MIN_CELL_WITH_NAME if count <= MAX_NAMED_CLASSES else 2
    cell = max(least, min(MAX_CELL, MATRIX_SIDE // count))
    side = cell * count
    label_font = _font(min(15 * SCALE, max(9 * SCALE, cell * 2 // 3)))
    names = [_shorten(name, label_font) for name in classes]
    names_width = max(int(label_font.getlength(name)) for name in names)
    horizontal = all(label_font.getlength(name) <= cell - 6 * SCALE for name in names)

    title_font, text_font, axis_font = _font(19 * SCALE), _font(14 * SCALE), _font(13 * SCALE)
    lines = [
        (statistics.model, title_font, INK),
        (f"accuracy {format_rate(statistics.accuracy)}", text_font, INK),
        ("rows: label; columns: predicted class; shade: share of the row", axis_font, FAINT),
    ]
    header = sum(font.size * 3 // 2 for _, font, _ in lines) + 10 * SCALE
    names_height = int(label_font.size * 3 // 2) if horizontal else names_width + 10 * SCALE
    left = MARGIN + names_width + 10 * SCALE
    top = MARGIN + int(header) + names_height
    text_width = max(int(font.getlength(text)) for text, font, _ in lines)
    width = max(left + side, MARGIN + text_width) + MARGIN
    image = Image.new("RGB", (width, top + side + MARGIN), WHITE)
    draw = ImageDraw.Draw(image)

    y = MARGIN
    for text, font, color in lines:
        draw.text((MARGIN, y), text, font=font, fill=color)
        y += int(font.size * 3 // 2)
    for index, name in enumerate(names):
        middle = cell * index + cell // 2
        draw.text((left - 8 * SCALE, top + middle), name, font=label_font, fill=INK, anchor="rm")
        if horizontal:
            draw.text((left + middle, top - 10 * SCALE), name, font=label_font, fill=INK, anchor="ms")
        else:
            _draw_vertical(image, (left + middle, top - 8 * SCALE), name, label_font)
    for actual, row in enumerate(statistics.confusion_matrix):
        _draw_row(draw, actual, list(row.predicted), left, top + actual * cell, cell)
    draw.rectangle((left, top, left + side, top + side), outline=FAINT, width=SCALE)
    return image


def _draw_row(draw: ImageDraw.ImageDraw, actual: int, counts_K: list[int], left: int, y: int, cell: int) -> None:
    total = max(1, sum(counts_K))
    grid = cell > MAX_CELL_WITHOUT_GRID
    far = cell if grid else cell - 1  # with a grid, neighbours share their line
    for predicted, count in enumerate(counts_K):
        if not count and not grid:
            continue  # it is white already
        share = count / total
        fill = _shade(CORRECT if predicted == actual else INCORRECT, share)
        x = left + predicted * cell
        draw.rectangle((x, y, x + far, y + far), fill=fill, outline=GRID if grid else None)
        if cell >= MIN_CELL_WITH_ZERO or (count and cell >= MIN_CELL_WITH_COUNT):
            text = _short_count(count, cell)
            color = (WHITE if share > 0.45 else INK) if count else FAINT
            percent = count and cell >= MIN_CELL_WITH_PERCENT
            middle = (x + cell // 2, y + cell // 2 - (9 * SCALE if percent else 0))
            draw.text(middle, text, font=_font(_count_size(cell)), fill=color, anchor="mm")
            if percent:
                below = (x + cell // 2, y + cell // 2 + 16 * SCALE)
                draw.text(below, f"{share:.1%}", font=_font(12 * SCALE), fill=color, anchor="mm")


def _draw_vertical(image: Image.Image, foot: tuple[int, int], text: str, font: ImageFont.FreeTypeFont) -> None:
    """Draw text from bottom to top; `foot` is the middle of its lower end."""
    height = int(font.size * 3 // 2)
    strip = Image.new("RGB", (int(font.getlength(text)) + 2, height), WHITE)
    ImageDraw.Draw(strip).text((0, height // 2), text, font=font, fill=INK, anchor="lm")
    rotated = strip.transpose(Image.Transpose.ROTATE_90)
    image.paste(rotated, (foot[0] - rotated.width // 2, foot[1] - rotated.height))


def _shade(color: Color, share: float) -> Color:
    # the square root makes small shares visible: 1% must not look like 0%
    strength = share**0.5
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in color)
    return red, green, blue


def _count_size(cell: int) -> int:
    return max(8 * SCALE, min(24 * SCALE, cell * 2 // 5))


def _short_count(count: int, cell: int) -> str:
    """A count in full if it fits into a cell, otherwise in thousands, millions or billions."""
    font = _font(_count_size(cell))
    text = f"{count:,}"
    for unit, divisor in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if font.getlength(text) <= cell - 4 * SCALE:
            break
        text = f"{count / divisor:.0f}{unit}"
    return text


def _shorten(name: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(name) <= MAX_LABEL_WIDTH:
        return name
    while name and font.getlength(name + "…") > MAX_LABEL_WIDTH:
        name = name[:-1]
    return name + "…"


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # all wheels of Pillow include FreeType
    return font
