"""Class names of any alphabet in plots."""

import warnings

import numpy as np
import pytest

from serving.statistics.confusion import ConfusionMatrix
from training.reports.plots import lettering, plot_confusion


def test_names_that_an_installed_font_can_draw_are_unchanged() -> None:
    names = ["cats", "собаки", "كلاب", "café"]
    letters = lettering(names)
    assert letters.names == names
    assert letters.missing == 0


def test_a_name_that_no_font_can_draw_becomes_its_number() -> None:
    letters = lettering(["cats", "\U000f0000 dogs"])  # a code point that is nobody's
    assert letters.names == ["cats", "#1"]
    assert letters.missing == 1


def test_long_names_keep_their_beginning_and_end() -> None:
    (name,) = lettering(["golden retriever, long-haired, of 2021"]).names
    assert name.startswith("golden retriever")
    assert name.endswith(" of 2021")
    assert len(name) == 28


@pytest.mark.parametrize("names", [("$x_{$", "a$b$c"), ("犬", "\U0001f436"), ("a" * 300, "b\nc")])
def test_any_name_can_be_plotted_without_warnings(names: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = plot_confusion(ConfusionMatrix(names, np.eye(2, dtype=np.int64))).png()
    assert png[:4] == b"\x89PNG"


def test_ten_thousand_classes_are_one_small_image() -> None:
    size = 2_001
    matrix = ConfusionMatrix(tuple(map(str, range(size))), np.eye(size, dtype=np.int64))
    assert len(plot_confusion(matrix).png()) < 500_000
