"""Ways to give the page an image in a real browser: drag and drop, paste, and the camera of a phone."""

import base64
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import Browser
from tests.support.images import encoded
from tests.support.servers import HttpServerProcess
from tests.support.web_page import browser_fixture as browser_fixture  # fixtures
from tests.support.web_page import images_fixture as images_fixture
from tests.support.web_page import load
from tests.support.web_page import server_fixture as server_fixture


def drag(browser: Browser, kind: str, *paths: object) -> None:
    """Drag files of this machine over the page, as the operating system reports it to the browser."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    browser.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})


def paste(browser: Browser) -> None:
    key = {"modifiers": 2, "key": "v", "code": "KeyV", "windowsVirtualKeyCode": 86}
    browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**key, "type": "keyDown", "commands": ["paste"]})
    browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**key, "type": "keyUp"})


def copy(browser: Browser, url: str, kind: str, content: bytes) -> None:
    """Put something into the browser's clipboard, as another program does."""
    permissions = {"origin": url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    script = """
        const [kind, text, done] = arguments;
        const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
        navigator.clipboard.write([new ClipboardItem({ [kind]: new Blob([bytes], { type: kind }) })])
            .then(() => done(""), (error) => done(String(error)));
    """
    assert browser.driver.execute_async_script(script, kind, base64.b64encode(content).decode()) == ""


def names(browser: Browser) -> list[str]:
    """The most probable class on each card."""
    return [card.find_element("css selector", ".bars .name").text for card in browser.all(".card:not(.failed)")]


def test_dropped_images_are_classified_and_other_files_are_named(
    browser: Browser,
    server: HttpServerProcess,
    images: list[str],
    tmp_path: Path,
) -> None:
    load(browser, server, "#watch")
    browser.wait(lambda: "no predictions yet" in browser.text("#statistics"))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder").mkdir()
    dragged = [images[0], tmp_path / "notes.txt", images[1], tmp_path / "folder"]
    drag(browser, "dragEnter", *dragged)
    drag(browser, "dragOver", *dragged)
    assert "over" in str(browser.driver.execute_script("return document.getElementById('drop').className")).split()
    drag(browser, "drop", *dragged)
    browser.wait(lambda: browser.text("#summary") == "2 images classified. Left out: 2 files that are no images.")
    assert names(browser) == ["red", "green"]
    assert browser.one("#drop").get_attribute("class") == "drop"
    browser.one("#clear").click()
    assert (browser.text("#summary"), browser.all(".card")) == ("", [])
    assert browser.console_errors() == []


def test_a_pasted_image_is_classified_and_pasted_text_changes_nothing(
    browser: Browser,
    server: HttpServerProcess,
    images: list[str],
) -> None:
    load(browser, server)
    browser.one("#model option")
    copy(browser, server.url, "image/png", Path(images[2]).read_bytes())
    paste(browser)
    browser.wait(lambda: browser.text("#summary") == "1 image classified.")
    assert names(browser) == ["blue"]
    copy(browser, server.url, "text/plain", b"red.png")
    paste(browser)
    copy(browser, server.url, "image/png", Path(images[0]).read_bytes())
    paste(browser)
    browser.wait(lambda: browser.text("#summary") == "2 images classified.")
    assert names(browser) == ["blue", "red"]
    assert browser.console_errors() == []


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "touch"])
def test_phones_offer_their_camera(
    browser: Browser,
    server: HttpServerProcess,
    tmp_path: Path,
    touch: bool,
) -> None:
    """The camera's program gives the page a photo that is stored on its side, with the orientation in EXIF."""
    upright = Image.new("RGB", (60, 90), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / "IMG_0001.jpg"
    photo.write_bytes(encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif))
    try:
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        load(browser, server)
        browser.one("#model option")
        assert browser.one("#camera-label").is_displayed() == touch
        if not touch:
            return
        camera = browser.one("#camera")
        assert (camera.get_attribute("capture"), camera.get_attribute("accept")) == ("environment", "image/*")
        camera.send_keys(str(photo))
        browser.wait(lambda: browser.text("#summary") == "1 image classified.")
        assert names(browser) == ["red"]
        size = "const image = document.querySelector('.card img'); return [image.naturalWidth, image.naturalHeight]"
        browser.wait(lambda: browser.driver.execute_script(size) == [60, 90])
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
