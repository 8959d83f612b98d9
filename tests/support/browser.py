"""A real browser for tests of the page: Debian's chromium, driven by selenium, without access to other hosts."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.waiting import LIMIT_S

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")


class Browser:
    """One window. Elements are found by CSS selectors."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        """The elements that match."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The first element that matches, waiting for it."""
        self.wait(lambda: self.all(selector))
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        """The visible text of the first element that matches."""
        return str(self.one(selector).text)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def wait(self, happens: Callable[[], Any]) -> None:
        """Wait until a condition holds; elements that were replaced meanwhile count as not yet."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                if happens():
                    return
            except webdriver.remote.errorhandler.StaleElementReferenceException:  # type: ignore[attr-defined]
                pass
            assert time.monotonic() < deadline, f"{happens} did not happen; the page:\n{self.text('body')}"
            time.sleep(0.05)

    def resize(self, width: int, height: int = 800, *, dark: bool = False) -> None:
        """Show the page as a screen of this size and colour scheme does."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def console_errors(self) -> list[str]:
        """Errors in the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requested_hosts(self) -> set[str]:
        """The hosts of all requests since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if url.startswith("http")}


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser; the test is skipped where it is missing."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--window-size=1200,900",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        started.set_page_load_timeout(LIMIT_S)
        started.set_script_timeout(LIMIT_S)
        yield Browser(started)
    finally:
        started.quit()
