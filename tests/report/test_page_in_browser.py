"""The report as readers see it, in a browser without a network: on a desk, a phone, in the dark, on paper."""

from pathlib import Path
from typing import Any

import pytest
from helpers import reports
from helpers.browser import Reader
from playwright.sync_api import Browser, Page

from lab.report import write_report

HEAD = "".join(f"<th>a measure of the {name} kind</th>" for name in "abcdefg")
ROW = "<tr><td>some server</td>" + "<td>1,234.5 ms (1.20 to 1.30)</td>" * 6 + "</tr>"
WIDE_AND_LONG = (
    f"<table><caption>All of it</caption><thead><tr>{HEAD}</tr></thead><tbody>{ROW * 14}</tbody></table>"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report with all that a page has: a measured answer, figures, tables, code, a failure."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALING_LAB_HOME", str(home))
        run = reports.scaled_run("a-run", blocks=1)
        reports.keep_sustained_rates(run)
        for name in ("00-summary", "04-worker-scaling"):
            reports.write_notebook(
                run.path / "notebooks" / f"{name}.ipynb",
                reports.prose(f"# How far does {name} go?\n\nIt is measured *here*."),
                reports.code('run: str = ""\nrate: float = 5.0  # offered, requests/s', tag="parameters"),
                reports.code("# Parameters\nrate = 50.0", tag="injected-parameters"),
                reports.code("import lab"),
                reports.code("tell = lab.answer()", reports.said("**Answer.** Twice, `lab` says.")),
                reports.prose("## The curve\n\nWith [a link](#the-table)."),
                reports.code("show(curve)  # as it was", reports.html(reports.picture())),
                reports.prose("## The table"),
                reports.code("x = 'text', 1.5, True"),
                reports.code("table(wide)", reports.html(WIDE_AND_LONG)),
            )
        reports.write_notebook(
            run.path / "notebooks" / "05-dispatch.ipynb",
            reports.prose("# Who is next?"),
            reports.code("1 / 0", reports.error("LabError", "no disk")),
        )
        return write_report(run.run_id)


@pytest.fixture
def page(reader: Reader, report: Path) -> Page:
    return reader.open(report)


def _is_reached(page: Page, name: str) -> bool:
    """Say whether a part begins at the top of the window, or as near to it as the page's end lets it."""
    top, left = page.locator(f"[id='{name}']").evaluate(
        "part => [part.getBoundingClientRect().top, document.body.scrollHeight - innerHeight - scrollY]"
    )
    return bool(-5 < top < 100 or (left < 5 and top > 0))


def test_it_fetches_nothing_complains_of_nothing_and_every_picture_has_a_text(
    page: Page, reader: Reader
) -> None:
    page.get_by_role("button", name="Show all code").click()
    assert (reader.requests, reader.errors) == ([], [])
    images: list[dict[str, Any]] = page.eval_on_selector_all(
        "img", "all => all.map(one => ({alt: one.alt, width: one.naturalWidth}))"
    )
    assert images == [{"alt": "A line that rises.", "width": 1184}] * 2
    assert "2 workers 1.80 times" in (page.locator("svg[role=img]").get_attribute("aria-label") or "")


def test_the_first_screen_has_one_sentence_one_number_and_one_picture(page: Page) -> None:
    assert page.locator("h1").inner_text() == (
        "2 workers sustain 17.0 to 18.0/s at p95\N{NO-BREAK SPACE}≤\N{NO-BREAK SPACE}300\N{NO-BREAK SPACE}ms:"
        " 1.89 times one process."
    )
    assert page.locator(".glance strong").inner_text() == "1.89×"
    for part in ("h1", ".glance strong", "svg.picture", ".where"):
        box = page.locator(part).bounding_box()
        assert box
        assert box["y"] + box["height"] <= 800, f"{part} is below the first screen"
    outside: list[str] = page.eval_on_selector_all(
        "svg.picture text",
        """all => all.filter((one) => {
            const box = one.getBBox();
            return box.x < 0 || box.y < 0 || box.x + box.width > 460 || box.y + box.height > 300;
        }).map((one) => one.textContent)""",
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_them_at_once_too(reader: Reader, report: Path, scheme: Any) -> None:
    reader.page.emulate_media(color_scheme=scheme)
    page = reader.open(report, 360, 740)
    for part in ("h1", ".glance strong", ".glance .interval", "svg.picture"):
        box = page.locator(part).bounding_box()
        assert box
        assert box["y"] + box["height"] <= 740, f"{part} is below the first screen"
    letters: list[float] = page.eval_on_selector_all(
        "svg.picture text",
        "all => all.map(one => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a)",
    )
    assert min(letters) >= 10


def test_a_link_opens_what_it_leads_into(page: Page) -> None:
    page.evaluate("document.querySelector('details.code pre').id = 'trial-1'")
    led_into = page.locator("[id='trial-1']")
    assert led_into.is_hidden()
    page.evaluate("location.hash = '#trial-1'")
    led_into.wait_for()
    assert led_into.is_visible()


def test_the_contents_lead_to_every_part_and_stay_in_reach(page: Page) -> None:
    links = page.locator("#contents a")
    for number in range(links.count()):
        links.nth(number).click()
        assert _is_reached(page, (links.nth(number).get_attribute("href") or "")[1:])
        box = page.locator("#contents").bounding_box()
        assert box == pytest.approx({"x": 0, "y": 0, "width": 256, "height": 800}, abs=1), (
            "but for a pixel's part"
        )
    page.locator("#contents a[href='#04-worker-scaling']").click()
    page.locator("#contents a[aria-current]", has_text="04").wait_for()
    page.locator("[id='04-worker-scaling'] a[rel=prev]").click()
    assert _is_reached(page, "00-summary")


def test_on_a_phone_the_contents_are_a_menu(reader: Reader, report: Path) -> None:
    page = reader.open(report, 360, 740)
    assert not page.locator("#contents").is_visible()
    page.get_by_role("button", name="Contents").press("Enter")
    page.locator("#contents a[href='#04-worker-scaling']").click()
    assert not page.locator("#contents").is_visible()
    assert _is_reached(page, "04-worker-scaling")
    page.get_by_role("button", name="Contents").click()
    page.keyboard.press("Escape")
    assert not page.locator("#contents").is_visible()


def test_code_unfolds_by_one_click_for_one_and_one_for_all(page: Page) -> None:
    shown = page.locator("details.code pre").filter(visible=True)
    assert shown.count() == 0
    page.locator("details.code summary").first.click()
    assert shown.count() == 1
    assert "show(curve)" in shown.first.inner_text()
    page.get_by_role("button", name="Show all code").click()
    assert shown.count() == page.locator("details.code pre").count() > 4
    page.get_by_role("button", name="Hide all code").click()
    assert shown.count() == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_serious(reader: Reader, report: Path, scheme: Any, width: int) -> None:
    reader.page.emulate_media(color_scheme=scheme)
    page = reader.open(report, width)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    page.eval_on_selector_all(".fold input", "all => all.forEach(one => one.checked = true)")
    dark: bool = page.evaluate("getComputedStyle(document.body).backgroundColor == 'rgb(20, 25, 30)'")
    assert dark is (scheme == "dark")
    assert reader.violations() == []


def test_the_first_stop_of_the_keyboard_skips_the_contents(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    outline: str = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert _is_reached(page, "answer")


def test_a_phone_scrolls_down_only_figures_fill_its_width_and_tables_scroll_in_their_boxes(
    reader: Reader, report: Path
) -> None:
    page = reader.open(report, 360, 740)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    page.eval_on_selector_all(".fold input", "all => all.forEach(one => one.checked = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    widths: list[int] = page.eval_on_selector_all("figure img", "all => all.map(one => one.width)")
    assert widths == [360, 360], "all of it is seen at once, and as large as it can be"
    captions: list[float] = page.eval_on_selector_all(
        "figure:has(img) figcaption", "all => all.map(one => one.getBoundingClientRect().left)"
    )
    assert captions == [16, 16], "in line with the text"
    boxes = page.locator(".fold .scroll")
    for number in range(boxes.count()):
        assert boxes.nth(number).evaluate("box => box.scrollWidth > box.clientWidth && box.tabIndex == 0")


@pytest.mark.parametrize("width", [1280, 360])
def test_no_fold_lies_over_text(reader: Reader, report: Path, width: int) -> None:
    page = reader.open(report, width)
    overlaps: list[str] = page.evaluate("""() => {
        const texts = [...document.querySelectorAll(":is(p, summary, h2, h3, figure, .fold):is(main *)")]
            .filter((one) => one.checkVisibility()).map((one) => [one, one.getBoundingClientRect()]);
        const apart = (a, b) => a.bottom <= b.top + 1 || b.bottom <= a.top + 1
            || a.right <= b.left || b.right <= a.left;
        return texts.flatMap(([one, box], at) => texts.slice(at + 1)
            .filter(([other, there]) => !one.contains(other) && !apart(box, there))
            .map(([other]) => `${one.textContent} lies over ${other.textContent}`));
    }""")
    assert overlaps == []


def test_a_wide_and_long_table_shows_its_first_part_and_by_one_click_the_rest(page: Page) -> None:
    fold = page.locator(".fold").first
    rows, columns = (
        fold.locator("tbody tr").filter(visible=True),
        fold.locator("thead th").filter(visible=True),
    )
    assert (rows.count(), columns.count()) == (8, 3)
    page.get_by_text("Show all 14 rows and 7 columns").first.click()
    assert (rows.count(), columns.count()) == (14, 7)
    inside: bool = fold.locator(".scroll").evaluate("box => box.getBoundingClientRect().right <= innerWidth")
    assert inside


def test_numbers_stand_to_the_right_and_intervals_are_quieter(page: Page) -> None:
    def look(selector: str, what: str) -> str:
        found: str = page.locator(selector).first.evaluate(f"one => getComputedStyle(one).{what}")
        return found

    assert look("tbody td:nth-child(1)", "textAlign") == "left"
    assert look(".fold tbody td:nth-child(2)", "textAlign") == "right"
    assert look(".fold thead th:nth-child(2)", "textAlign") == "right"
    assert look(".fold td .interval", "color") != look(".fold td", "color")


def test_without_a_script_all_of_it_can_be_read(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    page.get_by_text("Show all 14 rows").first.click()
    assert page.locator(".fold").first.locator("tbody tr").filter(visible=True).count() == 14
    page.locator("details.code summary").first.click()
    assert page.locator("details.code pre").first.is_visible()
    assert page.get_by_role("button").filter(visible=True).count() == 0, "none that does nothing"
    context.close()


def test_on_paper_there_is_no_code_and_nothing_to_click(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    for hidden in ("details.code", "#contents", "button", ".turn", ".fold label"):
        assert page.locator(hidden).filter(visible=True).count() == 0
    assert page.locator("h1").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 680, "height": 960})  # A4 between its margins
    figures = page.locator("figure").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(figures) <= 680
