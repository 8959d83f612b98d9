"""Text in CSV cells: nothing that a spreadsheet evaluates, and everything is read back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.system.csv_cells import escape_formula, unescape_formula


@given(st.text() | st.text("'=+-@a", max_size=5))
@example("=1+1")
@example("'=1+1")
@example("'")
def test_no_cell_begins_like_a_formula_and_each_is_read_back(text: str) -> None:
    cell = escape_formula(text)
    assert not cell.startswith(("=", "+", "-", "@"))
    assert unescape_formula(cell) == text


@pytest.mark.parametrize("name", ["cat.jpg", "dogs/-1.jpg", "'quoted'.jpg", "1=2.jpg", ""])
def test_other_names_are_unchanged(name: str) -> None:
    assert escape_formula(name) == unescape_formula(name) == name
