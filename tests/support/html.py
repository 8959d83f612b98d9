"""Checks of HTML pages."""

import re

import pytest


def assert_valid(page: str) -> None:
    """The page has no parse error of the HTML standard, unique identifiers, whole links and no external request."""
    html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")
    parser = html5lib.HTMLParser()
    parser.parse(page)
    assert [(at, code) for at, code, _ in parser.errors] == []
    assert "http" not in page
    assert "<script" not in page
    identifiers = re.findall(r' id="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))
    targets = set(re.findall(r'href="#([^"]*)"', page)) | set(re.findall(r"url\(#([^)]*)\)", page))
    assert targets <= set(identifiers)
