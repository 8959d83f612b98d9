"""A matplotlib figure as PNG, for files, and as SVG that follows the page's light and dark mode.

matplotlib draws all plots of training: it lays out axes, ticks and legends, and writes both formats. In the SVG its
colours become the page's CSS variables, and text stays text.
"""

import io
import re
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")

BLUE, BLUE2, BLUE3, ORANGE, GREY = "#1f5fa8", "#5b93cf", "#9dc0e6", "#d9722e", "#8a8f98"
INK = "#000000"
_VARIABLES = {BLUE: "blue", BLUE2: "blue2", BLUE3: "blue3", ORANGE: "orange", GREY: "grey", INK: "ink"}
"""The page's CSS variable of each colour."""
_LEFT_OUT = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->| xmlns(:\w+)?=\"[^\"]*\"", re.DOTALL
)


@dataclass(frozen=True)
class Plot:
    """One drawing."""

    figure: Figure

    def png(self) -> bytes:
        """The drawing on white."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=144)
        return buffer.getvalue()

    def svg(self, name: str, title: str) -> str:
        """The drawing for a page, on the page's background.

        Args:
            name: unique in the page: identifiers begin with it.
            title: for readers who do not see the drawing.
        """
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        text = _LEFT_OUT.sub("", buffer.getvalue()).replace("xlink:href", "href")
        text = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
        for colour, variable in _VARIABLES.items():
            text = text.replace(f": {colour}", f": var(--{variable})")
        text = re.sub(
            r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg role="img" aria-label="{title}" \1>', text, count=1
        )
        return text.strip()


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines["top"].set_visible(False)
    return figure, axes
