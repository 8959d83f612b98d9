"""The page in a real browser: classify, label, watch, models, tokens, narrow screens, accessibility."""

import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from serving.client import Client
from serving.statistics.store import StatisticsStore
from tests.support.browser import Browser
from tests.support.bundles import COLOURS, write_bundle
from tests.support.comparisons import record_pairs
from tests.support.servers import HttpServerProcess, http_server, write_clients
from tests.support.waiting import LIMIT_S
from tests.support.web_page import KEYS, SHADES, classify, load, recorded
from tests.support.web_page import browser_fixture as browser_fixture  # fixtures
from tests.support.web_page import images_fixture as images_fixture
from tests.support.web_page import server_fixture as server_fixture

TOKEN = "t" * 32
AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"


def test_images_are_classified_labelled_and_counted(
    browser: Browser, server: HttpServerProcess, images: list[str]
) -> None:
    load(browser, server)
    classify(browser, images)
    assert [card.find_element("css selector", ".name").text for card in browser.all(".card")] == list(SHADES)
    assert all("1 view" in card.text and "colours/1" in card.text for card in browser.all(".card"))
    browser.all(".card")[0].find_element("css selector", ".predicted").click()
    assert "red: not recorded yet" in browser.text(".label-status")
    for card in browser.all(".card")[1:]:  # the third one's label differs from the prediction
        card.find_element("css selector", "[data-label=green]").click()
    browser.wait(lambda: recorded(browser) == ["Recorded: red", "Recorded: green", "Recorded: green"])
    with Client(server.address, timeout_s=LIMIT_S) as client:
        (statistics,) = client.statistics()
    expected = [[0] * 3 for _ in range(3)]
    for label, predicted in (("red", "red"), ("green", "green"), ("green", "blue")):
        expected[COLOURS.index(label)][COLOURS.index(predicted)] += 1
    assert [list(row.predicted) for row in statistics.confusion_matrix] == expected

    browser.one("nav a[href='#watch']").click()
    browser.wait(lambda: "66.7%" in browser.text(".tiles"))
    cells = [cell.text.split("\n")[0] for cell in browser.all(".confusion td")]
    assert cells == [str(count) for row in expected for count in row]
    assert browser.all("svg.calibration .point")
    assert texts_cut_off(browser) == []
    browser.driver.get(f"{server.url}/docs")
    assert browser.one("h1").text.startswith("pawserve")
    assert browser.console_errors() == []
    assert browser.requested_hosts() == {urlsplit(server.url).netloc}


def texts_cut_off(browser: Browser) -> list[str]:
    """The texts of the calibration diagram that reach over its edges."""
    script = """
        const figure = document.querySelector("svg.calibration"), edges = figure.getBoundingClientRect();
        return [...figure.querySelectorAll("text")].filter((each) => {
            const box = each.getBoundingClientRect();
            return box.left < edges.left || box.right > edges.right || box.top < edges.top || box.bottom > edges.bottom;
        }).map((each) => each.textContent);"""
    found: list[str] = browser.driver.execute_script(script)
    return found


def test_two_versions_are_compared(browser: Browser, tmp_path: Path) -> None:
    for number in (1, 2):
        write_bundle(tmp_path / "models", version=number)
    (tmp_path / "state").mkdir()
    with http_server(tmp_path, "--shadow", "colours/2") as server:
        load(browser, server, "#compare")
        browser.wait(lambda: "no labels yet" in browser.text("#comparison"))
        assert [browser.one(f"#compare-{which}").get_attribute("value")[-1] for which in ("first", "second")] == [
            "1",
            "2",
        ]
        with StatisticsStore(tmp_path / "state" / "statistics.sqlite") as store:
            record_pairs(store, "colours", 1, 2, [("red", 50, True, True), ("blue", 4, False, True)])
            browser.wait(lambda: "more labels decide" in browser.text("#comparison"))
            record_pairs(store, "colours", 1, 2, [("blue", 20, False, True), ("blue", 1, True, False)])
            browser.wait(lambda: "colours/2 is better" in browser.text("#comparison"))
        assert [
            cell.text for cell in browser.all("#comparison [aria-label='Images by correct versions'] tbody td")
        ] == [
            "50",
            "1",
            "24",
            "0",
        ]
        assert "valid at any time" in browser.text("#comparison")
        for dark in (False, True):
            browser.resize(360, 740, dark=dark)
            assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360
            if AXE.exists():
                assert serious_violations(browser) == []
        browser.one("#compare-second option[value$='/1']").click()
        browser.wait(lambda: "Choose two versions" in browser.text("#comparison"))
        assert browser.console_errors() == []


def test_labels_from_elsewhere_appear_by_themselves(browser: Browser, server: HttpServerProcess) -> None:
    load(browser, server, "#watch")
    browser.wait(lambda: "no predictions yet" in browser.text("#statistics"))
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    with Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([picture.getvalue()], labels=["red"])
        browser.wait(lambda: [cell.text[0] for cell in browser.all(".confusion td.correct")] == ["1"])
        client.classify([picture.getvalue()], labels=["blue"])
        browser.wait(lambda: [cell.text[0] for cell in browser.all(".confusion td.incorrect")] == ["1"])


def test_keys_label_one_image_after_the_other_and_undo(
    browser: Browser, server: HttpServerProcess, images: list[str]
) -> None:
    load(browser, server)
    classify(browser, images)
    browser.driver.execute_script("document.activeElement.blur()")
    browser.keys(*KEYS.values())
    browser.wait(lambda: len(recorded(browser)) == 3)
    assert recorded(browser) == ["Recorded: red", "Recorded: green", "Recorded: blue"]
    browser.keys(KEYS["red"], "u")
    browser.wait(lambda: browser.all(".label-status")[2].text == "Recorded: blue")
    browser.keys(KEYS["red"])
    browser.wait(lambda: browser.all(".label-status")[2].text == "Recorded: red (was blue)")


def test_an_image_that_cannot_be_read_says_why_and_views_are_averaged(
    browser: Browser, server: HttpServerProcess, images: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    load(browser, server)
    browser.one("#views option[value='5']").click()
    browser.one("#model option")
    browser.one("#files").send_keys("\n".join([images[0], str(tmp_path / "bad.png")]))
    browser.wait(lambda: "1 image classified, 1 failed" in browser.text("#summary"))
    good, bad = browser.all(".card")
    assert "5 views" in good.text
    assert "are not an image" in bad.text
    assert "NOT_AN_IMAGE" in bad.text
    assert not bad.find_elements("css selector", ".choices")
    assert browser.console_errors() == []


def test_a_server_with_clients_asks_for_the_token_and_keeps_it_in_memory_only(
    browser: Browser, tmp_path: Path, images: list[str]
) -> None:
    write_bundle(tmp_path / "models")
    clients = write_clients(tmp_path / "clients.txt", f"predict,label camera {TOKEN}\n")
    with http_server(tmp_path, "--clients", clients) as server:
        load(browser, server)
        browser.one("dialog[open] #token").send_keys("wrong" * 8)
        browser.one("dialog[open] button.primary").click()
        browser.wait(lambda: browser.all("dialog[open]") and browser.one("#token").get_attribute("value") == "")
        browser.one("#token").send_keys(TOKEN)
        browser.one("dialog[open] button.primary").click()
        classify(browser, images)
        kept = "return JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert TOKEN not in browser.driver.execute_script(kept)
        browser.driver.refresh()
        browser.one("dialog[open]")


def test_models_show_their_state_engine_and_parity(browser: Browser, server: HttpServerProcess) -> None:
    load(browser, server, "#models")
    text = browser.text(".version")
    assert "colours/1 ready" in text
    assert f"3: {', '.join(COLOURS)}" in text
    assert "1 by default, as recommended; at most 16" in text
    assert "model.fp32.onnx" in text


@pytest.mark.parametrize("page", ["try", "watch", "models"])
def test_nothing_is_wider_than_a_phone(
    browser: Browser, server: HttpServerProcess, images: list[str], page: str
) -> None:
    load(browser, server)
    classify(browser, images)
    for card in browser.all(".card"):
        card.find_element("css selector", ".predicted").click()
    browser.wait(lambda: len(recorded(browser)) == 3)
    browser.resize(360, 740)
    browser.one(f"nav a[href='#{page}']").click()
    browser.one({"try": ".card", "watch": ".confusion", "models": ".version"}[page])
    width = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360


def serious_violations(browser: Browser) -> list[object]:
    """What axe finds in the page that is shown."""
    browser.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.driver.execute_async_script(
        "axe.run().then((result) => arguments[0](JSON.stringify(result.violations)))"
    )
    return [each for each in json.loads(found) if each["impact"] in ("serious", "critical")]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm install --no-save axe-core")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_violation(
    browser: Browser, server: HttpServerProcess, images: list[str], dark: bool
) -> None:
    load(browser, server)
    browser.resize(1200, dark=dark)
    classify(browser, images)
    browser.all(".predicted")[0].click()
    browser.wait(lambda: len(recorded(browser)) == 1)
    for page, ready in (("try", ".card"), ("watch", ".confusion"), ("models", ".version")):
        browser.one(f"nav a[href='#{page}']").click()
        browser.one(ready)
        assert serious_violations(browser) == []
