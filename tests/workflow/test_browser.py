"""The first page of a tiny study works in a browser: wide and narrow, light and dark, by mouse and by keyboard.

`make test-browser` runs these tests; without Chromium, its driver and selenium they are skipped. Screenshots and a
printed page stay in ``build/first-page/``.
"""

import base64
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_regions.report.pages.figures import pack
from tests.paths import ROOT
from tests.report.shown import links_of
from tests.workflow.conftest import Project, make_project

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
]
PICTURES = ROOT / "build/first-page"
WIDTHS = (1300, 400)
FIRST = "//tr[td[contains(., 'first page')]]//a"
"""The link of Snakemake's report that opens the page."""

PROTRUDING = """
const inside = (part) => part.closest('.scroll, .unseen, .skip, dialog, svg');
return [...document.querySelectorAll('main *, nav *')]
  .filter((part) => !inside(part) && part.getBoundingClientRect().right > innerWidth + 1)
  .map((part) => part.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Project:
    """A finished study of an organism with a plant: floors, ceilings, and changed regions."""
    project = make_project(tmp_path_factory.mktemp("browser") / "project")
    project.config = {
        "backbones": ["organism"],
        "cards": {"backbones": {"organism": {"extends": "organism-llama-layer"}}},
        "datasets": {"identification": ["fraud", "weapons"], "utility": ["everyday"]},
        "methods": {"snip": {}, "wanda": {}},
        "samples": {"identify": 8, "candidates": 12, "evaluate": 12},
        "responses": {"max_new_tokens": 24},
        "floors": 2,
        "ceilings": True,
        "behaviour": {"operations": {"zero": None}, "controls": ["random"], "draws": 2},
    }
    project.run()
    return project


class Page:
    """A browser that shows the first page of a study."""

    def __init__(self, study: Project, downloads: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        several = "profile.default_content_setting_values.automatic_downloads"
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads), several: 1})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.file, self.downloads = study.folder / "results/report/index.html", downloads

    def open(self, width: int = WIDTHS[0], look: str = "light", file: Path | None = None) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": look}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get((file or self.file).as_uri())

    def run(self, code: str, *arguments: object) -> object:
        return self.driver.execute_script(code, *arguments)

    def wait(self, code: str) -> None:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + 20
        while not self.run(f"return {code}"):
            assert time.monotonic() < deadline, f"not true after 20 seconds: {code}"
            time.sleep(0.05)

    def click(self, path: str) -> None:
        """Click the first element at this path that is shown, as soon as there is one."""
        deadline = time.monotonic() + 20
        while not (shown := [e for e in self.driver.find_elements("xpath", path) if e.is_displayed()]):
            assert time.monotonic() < deadline, f"nothing at {path} after 20 seconds"
            time.sleep(0.05)
        shown[0].click()

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def type(self, keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(keys).perform()

    def keep(self, name: str) -> None:
        """Keep a picture of the whole page."""
        box = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": box[0], "height": box[1], "scale": 1}
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def problems(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def column(self, header: str) -> list[str]:
        """The texts of a column of the table of numbers, without hidden rows."""
        return self.run(
            "const place = [...document.querySelectorAll('#numbers thead th')]"
            ".findIndex((th) => th.textContent.trim() === arguments[0]);"
            "return [...document.querySelectorAll('#numbers tbody tr:not([hidden])')]"
            ".map((row) => row.cells[place].textContent.trim())",
            header,
        )

    def heading(self, header: str):
        return self.driver.find_element(
            "xpath", f"//section[@id='numbers']//th/button[normalize-space()='{header}']"
        )


@pytest.fixture(scope="module")
def browser(study, tmp_path_factory) -> Iterator[Page]:
    page = Page(study, tmp_path_factory.mktemp("downloads"))
    yield page
    page.driver.quit()


@pytest.fixture
def page(browser) -> Page:
    browser.open()
    browser.problems()
    return browser


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_nothing_is_said_on_the_console(browser, width, look):
    browser.open(width, look)
    browser.wait(
        "!document.querySelector('details[open] img[data-packed], section > .figures img[data-packed]')"
    )
    browser.keep(f"{width}-{look}")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(PROTRUDING) == []
    assert browser.problems() == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (look == "light")


def test_every_figure_is_unpacked_and_drawn(page):
    page.wait("[...document.querySelectorAll('.thumb img')].every((image) => image.naturalWidth > 100)")
    assert page.run("return document.querySelectorAll('.thumb img').length") == 2 + 2 * 2 + 2 * 2
    assert page.run("return document.querySelectorAll('svg.ladder').length") == 1


def test_figures_of_a_closed_backbone_are_unpacked_when_it_is_opened(page):
    page.wait("!document.querySelector('img[data-packed]')")
    page.run(
        "const part = document.querySelector('details.shelf'); part.open = false;"
        "const image = part.querySelector('img'); image.removeAttribute('src'); image.dataset.packed = arguments[0];",
        pack(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    )
    assert page.run("return document.querySelector('details.shelf img').src") == ""
    page.find("details.shelf summary").click()
    page.wait("document.querySelector('details.shelf img').src.startsWith('blob:')")


def test_a_figure_grows_and_shrinks_by_keyboard(page):
    page.wait("document.querySelector('#figures .thumb img').naturalWidth > 100")
    thumb = page.find("#figures .thumb")
    page.run("arguments[0].focus()", thumb)
    page.type("\ue007")  # enter
    assert page.find("#large").is_displayed()
    assert page.find("#large-title").text == thumb.find_element("css selector", "img").get_attribute("alt")
    assert [a.text for a in page.driver.find_elements("css selector", "#large-links a")] == [
        "figure",
        "table",
    ]
    wide = page.run("return document.querySelector('#large img').getBoundingClientRect().width")
    assert wide > thumb.size["width"]
    page.keep("large")
    page.type("\ue00c")  # escape
    assert not page.find("#large").is_displayed()
    assert page.run("return document.activeElement === arguments[0]", thumb)


def test_the_table_is_sorted_by_numbers_and_by_words(page):
    before = page.column("IoU, median")
    assert len(before) == 4 and all(" ± " in text or text.startswith("0.") for text in before)
    for order in (1, -1):
        page.heading("IoU, median").click()
        found = [float(text.split()[0]) for text in page.column("IoU, median")]
        assert found == sorted(found, reverse=order < 0) and len(set(found)) > 1
        state = {1: "ascending", -1: "descending"}[order]
        assert (
            page.run("return document.querySelectorAll(`[aria-sort='${arguments[0]}']`).length", state) == 1
        )
    page.run("arguments[0].focus()", page.heading("refinement"))
    page.type("\ue007")
    assert page.column("refinement") == ["minus-everyday", "minus-everyday", "raw", "raw"]


def test_rows_without_a_number_stay_last(page):
    page.run("document.querySelector('#numbers tbody tr').cells[5].textContent = '–'")
    for _ in range(2):
        page.heading("IoU, median").click()
        assert page.column("IoU, median")[-1] == "–"


def test_rows_are_filtered_by_all_words(page):
    field = page.find("#filter")
    field.send_keys("SNIP raw")
    assert page.column("method") == ["snip"] and page.column("refinement") == ["raw"]
    assert page.find("#count").text == "1 of 4 rows"
    field.send_keys(" nothing")
    assert page.column("method") == [] and page.find("#count").text == "0 of 4 rows"
    field.clear()
    field.send_keys(" ")
    assert page.find("#count").text == "4 of 4 rows"


def test_all_columns_are_shown_on_demand(page):
    hidden = page.heading("IoU, range")
    assert not hidden.is_displayed()
    page.find("#every").click()
    assert hidden.is_displayed()
    assert page.run(PROTRUDING) == []


def test_a_column_explains_itself_to_mouse_and_keyboard(page):
    tip = page.find("#tip")
    assert not tip.is_displayed()
    about = "return document.getElementById(arguments[0].dataset.about).textContent.replaceAll(/\\s+/g, ' ')"
    chance = page.heading("chance")
    webdriver.ActionChains(page.driver).move_to_element(chance).perform()
    assert tip.is_displayed() and tip.text == page.run(about, chance)
    page.type("\ue00c")
    assert not tip.is_displayed()
    page.run("arguments[0].focus()", page.heading("ceiling"))
    assert tip.is_displayed() and "two halves" in tip.text
    page.type("\ue004")  # tab: to the next column
    assert tip.text == page.run(about, page.run("return document.activeElement"))
    box = page.run("return document.getElementById('tip').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0 and box["right"] <= WIDTHS[0] and box["top"] >= 0


def test_the_keyboard_reaches_the_content_first_and_shows_where_it_is(page):
    page.type("\ue004")
    assert page.run("return document.activeElement.textContent") == "Skip to the content"
    assert page.run("return document.activeElement.getBoundingClientRect().left") >= 0
    for _ in range(12):
        page.type("\ue004")
        style = page.run(
            "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
        )
        assert style == ["solid", "3px"], page.run("return document.activeElement.outerHTML")


def test_every_link_leads_to_a_file(page):
    links = links_of(page.file.read_text())
    assert len(links) > 40
    assert [link for link in links if not (page.file.parent / link).exists()] == []
    pages = [link for link in links if link.endswith(".html")]
    assert set(pages) == {"behaviour.html", "recovery.html", "shared_prompts.html"}
    for link in pages:
        for width in WIDTHS:
            page.open(width, file=page.file.parent / link)
            assert page.run("return document.documentElement.scrollWidth") <= width
            page.keep(f"{link.removesuffix('.html')}-{width}")
    assert page.problems() == []


def test_tables_and_figures_are_downloaded(page):
    for target in ("verdict.tsv", "organism/snip/row-0.05/iou.tsv"):
        page.run("document.querySelector(`main a[href='${arguments[0]}']`).click()", target)
        file, deadline = page.downloads / Path(target).name, time.monotonic() + 20
        while not file.exists() or file.stat().st_size != (page.file.parent / target).stat().st_size:
            assert time.monotonic() < deadline, f"no {file.name} after 20 seconds"
            time.sleep(0.05)
        assert file.read_bytes() == (page.file.parent / target).read_bytes()


def test_the_page_is_printed_light_with_all_verdicts(browser):
    browser.open(look="dark")
    browser.wait("!document.querySelector('details[open] img[data-packed]')")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.run("dispatchEvent(new Event('beforeprint'))")
    closed = "return document.querySelectorAll('#numbers td details:not([open])').length"
    assert browser.run(closed) == 0
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "landscape": True})
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "printed.pdf").write_bytes(base64.b64decode(printed["data"]))
    assert (PICTURES / "printed.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_works_inside_the_report_of_snakemake(study, browser):
    study.snakemake("--report", "report.html")
    browser.open(file=study.folder / "report.html")
    for path in ("//*[contains(text(), 'Result')]", "//*[contains(text(), '1 Summary')]", FIRST):
        browser.click(path)
    browser.wait("document.querySelector('iframe')")
    browser.driver.switch_to.frame(browser.find("iframe"))
    browser.wait("[...document.querySelectorAll('.thumb img')].every((image) => image.naturalWidth > 100)")
    assert browser.find("h1").text == "Safety regions: what was found"
    browser.driver.switch_to.default_content()
