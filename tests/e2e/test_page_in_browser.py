"""Pages in a real browser: Debian's Chromium, driven by Playwright, from files on disk."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import tiny, trained

pytestmark = pytest.mark.browser
sys.path.append(str(Path(__file__).parents[1] / "unit"))

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield one
        one.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a real run, which training has made; of a comparison, of two traces and of evaluations."""
    import shape_pages
    from language_pages import write_evaluation
    from page_examples import comparison, two_traces

    from zerofit.report.page import write_page

    cwd = tmp_path_factory.mktemp("pages")
    run = trained(str(tiny(cwd)), "evaluate.every_steps=2", "--nproc", "2", cwd=cwd)
    (cwd / "compare.json").write_text(json.dumps(comparison()))
    (cwd / "two.json").write_text(json.dumps(two_traces()))
    return {
        "run": run / "report.html",
        "comparison": write_page(cwd),
        "traces": write_page(cwd / "two.json"),
        "evaluation": write_page(write_evaluation(cwd / "evaluation")),
        "shapes": write_page(shape_pages.write_evaluation(cwd / "shapes")),
    }


class Visit:
    """A page that is open, and all that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-charts=drawn]")

    def tabs(self) -> list[Any]:
        return list(self.page.get_by_role("tab").all())

    def panel(self) -> str:
        """Name of the one that is shown."""
        shown = [one for one in self.page.locator(".panel").all() if one.is_visible()]
        assert len(shown) == 1
        return str(shown[0].get_attribute("id"))

    def close(self) -> None:
        path = self.page.url.partition("#")[0]
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if url != path and not url.startswith("data:")] == []


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    opened: list[Visit] = []

    def visit(*arguments: Any, **options: Any) -> Visit:
        opened.append(Visit(browser, *arguments, **options))
        return opened[-1]

    yield visit
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "evaluation",
        "shapes",
        *(pytest.param(one, marks=pytest.mark.thorough) for one in ("comparison", "traces")),
    ],
)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_draws_its_charts_and_fits(
    pages: dict[str, Path], visit: Any, name: str, width: int, tmp_path: Path
) -> None:
    one = visit(pages[name], width, has_touch=width < 500, is_mobile=width < 500)
    for tab in one.tabs():
        tab.click()
        panel = one.page.locator(f"#{one.panel()}")
        for plot in panel.locator(".plot").all():
            assert plot.locator("svg.main-svg").count() > 0, plot.get_attribute("id")
            assert plot.get_attribute("aria-label")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
        one.page.screenshot(path=tmp_path / f"{name}-{width}-{one.panel()}.png", full_page=True)


def test_tabs_are_reached_by_keyboard(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    first, last = one.tabs()[0], one.tabs()[-1]
    first.focus()
    assert one.panel() == "training"
    one.page.keyboard.press("ArrowRight")
    assert one.panel() == "test"
    assert one.page.evaluate("document.activeElement.id") == "tab-test"
    one.page.keyboard.press("End")
    assert one.panel() == last.get_attribute("aria-controls")
    one.page.keyboard.press("ArrowRight")
    assert one.panel() == "training"
    assert [tab.get_attribute("aria-selected") for tab in one.tabs()].count("true") == 1
    assert [tab.get_attribute("tabindex") for tab in one.tabs()].count("-1") == len(one.tabs()) - 1
    one.page.keyboard.press("ArrowLeft")
    assert one.page.url.endswith("report.html"), "keys alone leave the address as it is"


def test_the_address_opens_a_tab(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    one.page.evaluate("location.hash = '#configuration'")
    one.page.wait_for_selector("#configuration", state="visible")
    assert one.panel() == "configuration"


def test_the_legend_hides_a_curve_and_shows_it_again(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    key = one.page.get_by_role("button", name="validation", exact=True)
    lines = one.page.locator("#plot-loss .scatterlayer .trace")
    assert lines.count() == 2
    key.focus()
    one.page.keyboard.press("Space")
    assert key.get_attribute("aria-pressed") == "false"
    assert lines.count() == 1
    key.click()
    assert key.get_attribute("aria-pressed") == "true"
    assert lines.count() == 2


def test_a_curve_says_its_figures_where_one_points(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    loss = json.loads(one.page.locator("#charts").text_content())["loss"]["data"][0]
    one.page.locator("#plot-loss .draglayer .nsewdrag").hover()
    label = one.page.locator("#plot-loss .hoverlayer .legend")
    label.wait_for()
    said = label.text_content()
    assert "training" in said
    found = re.search(r"training\s*:\s*([\d.]+)", said)
    assert found is not None
    assert any(abs(float(found[1]) - value) < 0.01 for value in loss["y"])


def test_another_size_and_other_colours_leave_the_axes_as_they_are(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    ranges = """() => [...document.querySelectorAll("#training .plot")].map(
        (plot) => ["xaxis", "yaxis"].map((axis) => plot._fullLayout[axis].range))"""
    before = one.page.evaluate(ranges)
    one.page.set_viewport_size({"width": 900, "height": 1500})
    width = one.page.evaluate("document.querySelector('#plot-loss').clientWidth")
    one.page.wait_for_selector(f"#plot-loss svg.main-svg[width='{width}']")
    one.page.locator("#theme").click()
    after = one.page.evaluate(ranges)
    assert [len(one) for one in before] == [2] * len(after)
    for old, new in zip(before, after, strict=True):
        for was, now in zip(sum(old, []), sum(new, []), strict=True):
            assert now == pytest.approx(was, rel=0.15, abs=0.3), (
                "markers need more room in a narrow chart; no more than that"
            )


def test_dark_follows_the_system_and_the_button(pages: dict[str, Path], visit: Any) -> None:
    def colours(one: Visit) -> tuple[str, str]:
        paper = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
        line = one.page.evaluate("getComputedStyle(document.querySelector('#plot-loss .js-line')).stroke")
        return paper, line

    light, dark = visit(pages["run"], color_scheme="light"), visit(pages["run"], color_scheme="dark")
    assert colours(light)[0] != colours(dark)[0]
    assert colours(light)[1] != colours(dark)[1]
    light.page.get_by_role("button", name="Show the page in dark colours").click()
    assert colours(light) == colours(dark)
    light.page.get_by_role("button", name="Show the page in light colours").click()
    light.page.emulate_media(color_scheme="dark")
    assert colours(light)[0] != colours(dark)[0], "the button has the last word"


@pytest.mark.thorough
def test_paper_has_every_section(pages: dict[str, Path], visit: Any, tmp_path: Path) -> None:
    for name, sections in (
        ("run", ("Training", "Test", "Configuration", "Reproduce")),
        ("comparison", ("Overview", "Memory", "Speed", "Loss", "Configuration")),
    ):
        one = visit(pages[name], color_scheme="dark")
        path = tmp_path / f"{name}.pdf"
        one.page.pdf(path=path, tagged=True, outline=True, print_background=True)
        headings = set(re.findall(rb"/Title \((.*?)\)", path.read_bytes()))
        assert {section.encode() for section in sections} <= headings
        undrawn = one.page.locator(".plot:not(:has(svg.main-svg))")
        assert undrawn.count() == 0
        assert one.panel() == one.tabs()[0].get_attribute("aria-controls"), "the screen is as it was"


def test_samples_are_shown_with_what_the_model_says(pages: dict[str, Path], visit: Any) -> None:
    one = visit(pages["run"])
    one.page.get_by_role("tab", name="Test").click()
    pictures = one.page.locator(".pictures img")
    assert pictures.count() == 16
    assert all(picture.evaluate("one => one.complete && one.naturalWidth === 8") for picture in pictures.all())
    wrong = one.page.locator(".pictures .wrong").count()
    assert wrong == 8, "six steps leave enough to get wrong"


def test_a_browser_that_cannot_unpack_says_so(pages: dict[str, Path], browser: Any) -> None:
    context = browser.new_context()
    context.add_init_script("delete globalThis.DecompressionStream")
    page = context.new_page()
    page.goto(pages["run"].as_uri())
    page.wait_for_selector("html[data-charts=broken]")
    assert "their figures are in the tables" in page.locator("#broken").text_content()
    page.locator("#training summary").first.click()
    assert page.locator("#training table").first.is_visible()
    context.close()
