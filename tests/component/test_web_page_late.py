"""What the page does while answers are late: the order of labels, and images of a page that was cleared."""

from pathlib import Path

from serving.client import Client
from tests.support.browser import Browser
from tests.support.bundles import COLOURS
from tests.support.servers import HttpServerProcess
from tests.support.waiting import LIMIT_S
from tests.support.web_page import KEYS, classify, load, recorded
from tests.support.web_page import browser_fixture as browser_fixture  # fixtures
from tests.support.web_page import images_fixture as images_fixture
from tests.support.web_page import server_fixture as server_fixture

HOLD = """
    const [prefix] = arguments;
    const original = window.fetch;
    const told = new Promise((resolve) => { window.tell = resolve; });
    window.held = [];
    window.fetch = async (path, options) => {
        if (path.startsWith(prefix)) {
            window.held.push(options.body);
            if (window.held.length === 1) await told;
        }
        return original(path, options);
    };
"""
"""The first request of a path is sent when the page is told so."""


def test_keys_begin_with_the_first_image_whichever_is_answered_first(
    browser: Browser, server: HttpServerProcess, images: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    load(browser, server)
    browser.one("#model option")
    browser.driver.execute_script(HOLD, "/v1/classify")
    browser.one("#files").send_keys("\n".join(images))
    browser.wait(lambda: len(browser.all(".card .choices")) == 2)
    browser.driver.execute_script("document.activeElement.blur()")
    browser.keys(KEYS["red"])  # the first image has no answer to label yet
    assert browser.all(".label-status:not(:empty)") == []
    browser.driver.execute_script("window.tell()")
    browser.wait(lambda: len(browser.all(".card .choices")) == 3)
    browser.keys(*KEYS.values())
    browser.wait(lambda: recorded(browser) == ["Recorded: red", "Recorded: green", "Recorded: blue"])
    # of new images the first that can be labelled is marked
    browser.one("#files").send_keys("\n".join([str(tmp_path / "bad.png"), images[2]]))
    browser.wait(lambda: "4 images classified, 1 failed" in browser.text("#summary"))
    assert [card.get_attribute("class") for card in browser.all(".card")[3:]] == ["card failed", "card current"]


def test_a_label_chosen_while_another_is_sent_is_the_one_that_counts(
    browser: Browser, server: HttpServerProcess, images: list[str]
) -> None:
    load(browser, server)
    classify(browser, images[:1])
    browser.driver.execute_script(HOLD, "/v1/labels")
    browser.one("[data-label=red]").click()
    browser.wait(lambda: browser.text(".label-status") == "red: being recorded…")
    browser.one("[data-label=green]").click()
    browser.wait(lambda: browser.text(".label-status").startswith("green: not recorded yet"))
    browser.one("[data-label=blue]").click()
    browser.driver.execute_async_script("setTimeout(arguments[0], 4000)")  # the page's UNDO_MS
    assert browser.driver.execute_script("return window.held.length") == 1
    browser.driver.execute_script("window.tell()")
    browser.wait(lambda: browser.text(".label-status") == "Recorded: blue (was red)")
    with Client(server.address, timeout_s=LIMIT_S) as client:
        (statistics,) = client.statistics()
    counts = {label: list(row.predicted) for label, row in zip(COLOURS, statistics.confusion_matrix, strict=True)}
    assert counts == {name: [int(name == "blue" and each == "red") for each in COLOURS] for name in COLOURS}


def test_images_that_are_still_classified_when_the_page_is_cleared_are_forgotten(
    browser: Browser, server: HttpServerProcess, images: list[str]
) -> None:
    load(browser, server)
    browser.one("#model option")
    browser.driver.execute_script(HOLD, "/v1/classify")
    browser.one("#files").send_keys("\n".join(images))
    browser.wait(lambda: len(browser.all(".card .choices")) == 2)
    browser.one("#clear").click()
    assert (browser.text("#summary"), browser.all(".card")) == ("", [])
    browser.one("#files").send_keys(images[1])
    browser.wait(lambda: browser.text("#summary") == "1 image classified.")
    browser.driver.execute_script("window.tell()")
    browser.one("#files").send_keys(images[2])
    browser.wait(lambda: browser.text("#summary") == "2 images classified.")
    assert len(browser.all(".card")) == 2


def test_what_a_person_scrolled_and_focused_stays_so_while_labels_arrive(
    browser: Browser, server: HttpServerProcess, images: list[str]
) -> None:
    red = Path(images[0]).read_bytes()
    with Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([red], labels=["red"])
        load(browser, server, "#watch")
        browser.wait(lambda: "100.0%" in browser.text("#statistics .tiles"))
        browser.driver.execute_script(
            "document.styleSheets[0].insertRule('.confusion { min-width: 3000px; }');"
            "const region = document.querySelector('[aria-label=\"Confusion matrix\"]');"
            "region.focus(); region.scrollLeft = 200;"
        )
        client.classify([red], labels=["blue"])
        browser.wait(lambda: "50.0%" in browser.text("#statistics .tiles"))
    focused = "const each = document.activeElement; return [each.getAttribute('aria-label'), each.scrollLeft];"
    assert browser.driver.execute_script(focused) == ["Confusion matrix", 200]
