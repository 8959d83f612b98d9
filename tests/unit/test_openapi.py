"""The OpenAPI document: valid, complete, and shown without anything from elsewhere."""

import re
from html.parser import HTMLParser
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from serving.api.access import NEEDS, OPEN
from serving.image.errors import Reason
from serving.web.app import endpoint_table
from serving.web.open_inference.endpoints import InferenceEndpoints
from serving.web.openapi.document import openapi_document
from serving.web.openapi.page import to_html
from serving.web.openapi.reasons import REASONS
from serving.web.pawserve.endpoints import ClassifierEndpoints
from tests.support.commands import ROOT

DOCUMENT = openapi_document()
RAISED = re.compile(r'(?:invalid|ApiError|_unauthenticated|_invalid)\(\s*(?:Code\.\w+,\s*)?"([A-Z_]{5,})"')
ONLY_IN_STREAMS = {"ID_TOO_LONG"}


def table() -> list[tuple[str, str, str]]:
    nothing: Any = None
    entries = endpoint_table(ClassifierEndpoints(nothing, nothing), InferenceEndpoints(nothing, nothing, nothing))
    return [(method.lower(), path, call) for method, path, call, _ in entries]


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): each for path, methods in DOCUMENT["paths"].items() for method, each in methods.items()}


def test_the_document_is_valid() -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_it_describes_exactly_the_endpoints_that_there_are() -> None:
    assert set(operations()) == {(method, path) for method, path, _ in table()}


def test_it_says_which_endpoints_need_no_token() -> None:
    for method, path, call in table():
        assert (operations()[method, path]["security"] == [{}]) == (NEEDS[call] == OPEN), path


def test_every_operation_has_its_own_name() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(names) == len(set(names))


class Page(HTMLParser):
    """What a page links to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                assert value not in self.anchors
                self.anchors.add(value or "")


def test_the_page_shows_every_endpoint_and_all_its_links_exist() -> None:
    html = to_html(DOCUMENT)
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    for link in page.links:
        assert link in ("/openapi.json", "/docs.css", "/icon.svg") or link.removeprefix("#") in page.anchors, link
    for path in DOCUMENT["paths"]:
        assert f"</span> {path}</code>" in html


def test_every_reason_is_on_the_page_and_in_the_documentation() -> None:
    raised = set()
    for folder in ("api", "web", "image"):
        for path in (ROOT / "serving" / folder).rglob("*.py"):
            raised |= set(RAISED.findall(path.read_text(encoding="utf-8")))
    raised |= {str(reason.value) for reason in Reason}
    assert raised - ONLY_IN_STREAMS == set(REASONS)
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("api.md", "http.md", "open-inference.md"))
    assert {reason for reason in REASONS if f"`{reason}`" not in pages} == set()
