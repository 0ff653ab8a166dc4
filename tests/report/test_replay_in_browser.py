"""The replay in a browser: a reader sees every request, at every time, once, and plays, holds and seeks."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import Reader
from helpers.replays import PLACES, counts, page_of, time_s
from playwright.sync_api import Page

from lab.report.replay import section
from lab.study.runs import run_in

ROOT = Path(__file__).parents[2]


@cache
def _of_reference() -> str:
    """Return the replay of the run that is kept with the code."""
    return section(run_in(ROOT / "data/reference"))


@pytest.fixture
def page(reader: Reader, tmp_path: Path) -> Page:
    """The replay of the reference run."""
    markup = _of_reference()
    page = reader.open(page_of(tmp_path, f"<h1>05</h1>{markup}"))
    page.wait_for_selector(".replay[data-t]")
    return page


def _set(page: Page, position: int) -> None:
    page.locator("input").evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input')); }", position
    )


def test_it_takes_the_still_figures_place_and_stands_at_the_telling_moment(
    page: Page, reader: Reader
) -> None:
    assert reader.errors == reader.requests == []
    assert page.locator(".replay-still").count() == 0
    assert page.locator(".scene").count() == 2
    data = json.loads(page.locator("#replay-data").text_content() or "")
    assert time_s(page) == data["at"]
    assert page.locator("button").text_content() == "Play"
    for scene, found in zip(data["scenes"], counts(page), strict=True):
        waiting = sum(one["due"] <= data["at"] < one["start"] for one in scene["requests"])
        assert found[1] == waiting
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    page.wait_for_selector(".replay[data-t]")
    assert page.locator(".replay").get_attribute("data-playing") == "false"
    assert time_s(page) == data["at"]


def test_every_request_is_in_one_place_at_every_time(page: Page) -> None:
    scenes = json.loads(page.locator("#replay-data").text_content() or "")["scenes"]
    highest = int(page.locator("input").get_attribute("max") or "")
    for position in (0, 31, 100, 170, highest):
        _set(page, position)
        t = time_s(page)
        for i, (scene, found) in enumerate(zip(scenes, counts(page), strict=True)):
            due, start, end = (
                np.array([one[key] for one in scene["requests"]]) for key in ("due", "start", "end")
            )
            known = [
                (t < due).sum(),
                ((due <= t) & (t < start)).sum(),
                ((start <= t) & (t < end)).sum(),
                (end <= t).sum(),
            ]
            assert found == known
            dots = page.locator(".scene").nth(i).locator("circle")
            assert dots.count() == len(due)
            looks = dots.evaluate_all("(dots) => dots.map((dot) => dot.classList[0])")
            assert [looks.count(place) for place in PLACES] == known
    assert counts(page)[0] == [0, 0, 0, len(scenes[0]["requests"])]


def test_dots_are_where_their_place_is(page: Page) -> None:
    box = page.locator(".scene").first.locator("rect.busy").first.bounding_box()
    dot = page.locator(".scene").first.locator("circle.working").first.bounding_box()
    floor = page.locator(".scene").first.locator(".axis").bounding_box()
    done = page.locator(".scene").first.locator("circle.done").first.bounding_box()
    assert box is not None
    assert dot is not None
    assert floor is not None
    assert done is not None
    assert box["x"] <= dot["x"] <= dot["x"] + dot["width"] <= box["x"] + box["width"]
    assert done["y"] + done["height"] <= floor["y"] + 1


def test_play_runs_on_and_pause_holds(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    _set(page, 0)
    button = page.get_by_role("button", name="Play")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.replay').dataset.t > 0.01")
    page.get_by_role("button", name="Pause").click()
    held = time_s(page)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert time_s(page) == held > 0


def test_it_ends_where_the_last_request_does_and_begins_again(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    _set(page, 238)
    page.get_by_role("button").click()
    page.wait_for_selector(".replay[data-playing=false]")
    assert page.locator("button").text_content() == "Play"
    ended = time_s(page)
    page.get_by_role("button").click()
    page.wait_for_function("document.querySelector('.replay').dataset.playing === 'true'")
    assert time_s(page) < ended


def test_the_slider_is_for_the_keyboard_too_and_says_the_time(page: Page) -> None:
    slider = page.get_by_role("slider", name="Time")
    before = time_s(page)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert 0 < before - time_s(page) < 0.05 * before
    assert re.fullmatch(r"\d+ ms of \d+ ms", str(slider.evaluate("(one) => one.ariaValueText")))


def test_with_reduced_motion_it_plays_in_steps_and_dots_are_at_once_in_their_places(page: Page) -> None:
    _set(page, 0)
    page.evaluate("""() => {
      window.seen = [];
      const root = document.querySelector(".replay");
      const dots = () => [...root.querySelectorAll("circle")].map((dot) => dot.getAttribute("transform"));
      const look = () => [root.dataset.t, ...dots()].join();
      (function watch() {
        if (seen.at(-1) !== look()) seen.push(look());
        requestAnimationFrame(watch);
      })();
    }""")
    page.get_by_role("button").click()
    page.wait_for_function("seen.length >= 3")
    times = [float(str(one).split(",")[0]) for one in page.evaluate("seen")]
    steps = np.diff(times)
    assert len(times) == len(set(times)), "a time has but one picture"
    assert steps[1:] == pytest.approx(steps[1])
    assert steps[1] > 0.01 * 0.5


def test_it_fits_a_phone_and_its_scenes_stack(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function(
        "document.querySelectorAll('.scene')[1].offsetTop > document.querySelector('.scene').offsetTop"
    )
    page.wait_for_function("document.querySelector('.scene svg').viewBox.baseVal.width < 350")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_axe_finds_nothing_serious(page: Page, reader: Reader) -> None:
    assert reader.violations() == []


def test_without_scripts_the_still_figure_stays(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_of(tmp_path, _of_reference()).as_uri())
    assert page.locator("svg.replay-still").is_visible()
    assert not page.locator("button").count()
    context.close()
