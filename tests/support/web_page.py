"""The page of a server in a real browser: fixtures and steps of its tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import Browser, open_browser
from tests.support.bundles import COLOURS, write_bundle
from tests.support.servers import HttpServerProcess, http_server

SHADES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
KEYS = {name: str(COLOURS.index(name) + 1) for name in SHADES}
"""Which key labels an image."""


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(name="server")
def server_fixture(tmp_path: Path) -> Iterator[HttpServerProcess]:
    write_bundle(tmp_path / "models")
    with http_server(tmp_path) as started:
        yield started


@pytest.fixture(name="images")
def images_fixture(tmp_path: Path) -> list[str]:
    """Three images, one of each colour."""
    paths = []
    for name, shade in SHADES.items():
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (90, 60), shade).save(path)
        paths.append(str(path))
    return paths


def load(browser: Browser, server: HttpServerProcess, page: str = "") -> None:
    browser.driver.get("about:blank")
    browser.resize(1200)
    browser.console_errors()
    browser.requested_hosts()
    browser.driver.get(f"{server.url}/{page}")


def classify(browser: Browser, images: list[str]) -> None:
    browser.one("#model option")
    browser.one("#files").send_keys("\n".join(images))
    browser.wait(lambda: f"{len(images)} image" in browser.text("#summary"))


def recorded(browser: Browser) -> list[str]:
    return [each.text for each in browser.all(".label-status") if each.text.startswith("Recorded")]
