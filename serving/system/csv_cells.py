"""Cells of CSV files that spreadsheets open: text from clients must not become a formula.

A spreadsheet evaluates a cell that begins with = + - or @ (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import re

_FORMULA = re.compile(r"'*[=+\-@]")
_ESCAPED_FORMULA = re.compile(r"'+[=+\-@]")


def escape_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would evaluate; other text is unchanged."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` was given."""
    return cell[1:] if _ESCAPED_FORMULA.match(cell) else cell
