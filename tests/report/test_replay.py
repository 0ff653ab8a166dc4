"""The replay: what was recorded is played rightly, and a reader sees every request, at every time, once."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.browser import Reader
from helpers.html_page import Page as Markup
from helpers.trial_rows import trials
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page

from lab.report.replay import Scene, at_own_worker, in_one_queue, section, telling_moment
from lab.study.run import Run, run_in

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "lab/report/templates"


@st.composite
def played(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Scene]:
    """Arrivals, some at the same time, with their loops, under either dispatch."""
    workers = draw(st.integers(2, 5))
    number = draw(st.integers(1, 40))
    due_s = np.cumsum(draw(_lists(number, st.sampled_from([0.0, 0.001, 0.01]) | st.floats(0, 0.1))))
    service_s = np.array(draw(_lists(number, st.floats(1e-6, 0.2))))
    if draw(st.booleans()):
        return due_s, service_s, in_one_queue("", workers, due_s, service_s)
    worker = np.array(draw(_lists(number, st.integers(0, workers - 1))))
    return due_s, service_s, at_own_worker("", workers, due_s, service_s, worker)


def _lists(number: int, of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, min_size=number, max_size=number)


@given(played())
def test_every_request_is_served_once_for_as_long_as_its_loop(
    case: tuple[np.ndarray, np.ndarray, Scene],
) -> None:
    due_s, service_s, scene = case
    assert np.array_equal(scene.due_s, due_s)
    assert np.allclose(scene.end_s - scene.start_s, service_s, rtol=0, atol=1e-12)
    assert (scene.start_s >= due_s).all()
    told = scene.for_script()["requests"]
    assert [one["due"] for one in told] == np.round(due_s, 6).tolist()
    assert all(one["due"] <= one["start"] <= one["end"] for one in told)


@given(played())
def test_no_worker_serves_two_at_once_nor_idles_while_its_own_wait(
    case: tuple[np.ndarray, np.ndarray, Scene],
) -> None:
    *_, scene = case
    for worker in range(scene.workers):
        its = scene.worker == worker
        assert (scene.start_s[its][1:] >= scene.end_s[its][:-1]).all()
    for i, start_s in enumerate(scene.start_s):
        if start_s > scene.due_s[i] + 1e-9:
            just_before_s = float((max(scene.due_s[i], start_s - 1e-9) + start_s) / 2)
            idle = scene.idle(just_before_s)
            assert scene.worker[i] not in idle
            assert not (scene.shared and idle), "in one queue, none waits while any worker is idle"


def _scenes() -> tuple[Scene, Scene]:
    """Four requests of a second each; by hash, all of them go to one of two workers."""
    due_s, service_s = np.array([0.0, 0.1, 0.2, 5.0]), np.ones(4)
    return (
        at_own_worker("hash", 2, due_s, service_s, np.zeros(4, np.int64)),
        in_one_queue("queue", 2, due_s, service_s),
    )


def test_waits_are_known_where_all_go_to_one_worker() -> None:
    hashed, queue = _scenes()
    assert hashed.start_s.tolist() == pytest.approx([0, 1, 2, 5])
    assert hashed.wait_s == pytest.approx((0.9 + 1.8) / 4)
    assert queue.start_s.tolist() == pytest.approx([0, 0.1, 1, 5])
    assert queue.worker.tolist() == [0, 1, 0, 1], "the worker that was free first takes the next"
    assert hashed.waiting(np.array([0.05, 0.15, 0.5, 1.5, 2.5])).tolist() == [0, 1, 2, 1, 0]


def test_the_telling_moment_is_where_most_more_wait_beside_most_idle_workers() -> None:
    """By hash one more waits from 0.1 s to 2 s, for the longest while between changes from 1.1 s on."""
    hashed, queue = _scenes()
    assert telling_moment(hashed, queue) == pytest.approx((1.1 + 2.0) / 2) == telling_moment(queue, hashed)
    assert telling_moment(queue, queue) > 0


class Recorded(Run):
    """A run whose notebook 05 has these trials, with these requests each."""

    def __init__(self, rows: pd.DataFrame, records: pd.DataFrame) -> None:
        self._rows, self._records = rows, records

    def trials(self, experiment: str) -> pd.DataFrame:
        return self._rows if experiment == "dispatch" else self._rows.iloc[:0]

    def requests(self, trials: pd.DataFrame | str) -> pd.DataFrame:
        assert isinstance(trials, pd.DataFrame)
        return pd.concat([self._records.assign(trial_id=name) for name in trials["trial_id"]])


HASHED = {
    "trial_id": "dispatch.b01.aa",
    "topology": "cluster",
    "workers": 2,
    "dispatch": "reuseport",
    "arrivals": "poisson",
    "utilisation": 0.7,
}


def _records(number: int = 40, **changes: Any) -> pd.DataFrame:
    """Requests every 10 ms whose loops take 14 ms, in runs of three to the same worker."""
    due_s = 0.01 * np.arange(number)
    records = {
        "due_s": due_s,
        "end_s": due_s + 0.05,
        "latency_s": 0.05,
        "service_s": 0.014,
        "outcome": "ok",
        "worker": np.where(np.arange(number) // 3 % 2, 4711.0, 4712.0),
    }
    return pd.DataFrame(records | changes)


def _replayed(rows: list[dict[str, Any]] | None = None, **changes: Any) -> str:
    return section(Recorded(trials(*(rows or [HASHED])), _records(**changes)))


def _data(markup: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="replay-data">(.*?)</script>', markup)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_recorded_times_and_workers_are_played_under_both_dispatches() -> None:
    hashed, queue = _data(_replayed())["scenes"]
    dues = [[request["due"] for request in scene["requests"]] for scene in (hashed, queue)]
    assert dues[0] == dues[1] == pytest.approx([0.014 + 0.01 * i for i in range(40)])
    assert [request["worker"] for request in hashed["requests"]][:7] == [0, 0, 0, 1, 1, 1, 0]
    assert (hashed["queue"], queue["queue"]) == ("each", "shared")
    assert {round(one["end"] - one["start"], 6) for one in hashed["requests"] + queue["requests"]} == {0.014}


def test_the_heading_is_the_finding_computed_from_the_scenes() -> None:
    markup = _replayed()
    waits_ms = [
        1000 * np.mean([one["start"] - one["due"] for one in scene["requests"]])
        for scene in _data(markup)["scenes"]
    ]
    assert waits_ms[1] == pytest.approx(0)
    said = re.search(r"40 requests wait ([\d.]+) ms on average under reuseport, no time in one queue", markup)
    assert said
    assert float(said[1]) == pytest.approx(waits_ms[0], rel=0.01)


def test_the_caption_says_what_was_recorded_what_is_played_and_how_it_was_chosen() -> None:
    text = Markup(_replayed([HASHED, HASHED | {"trial_id": "dispatch.b02.bb"}])).text("figcaption")
    assert "Recorded in trial dispatch.b01.aa (reuseport, 2 workers, utilisation 70 %)" in text
    assert "mean latency was 50.0 ms as measured" in text
    assert "Of 2 such trials in this run" in text
    assert "No other trial" in Markup(_replayed()).text("figcaption")


def test_the_still_figure_says_the_finding_to_those_who_cannot_see_it() -> None:
    pictures = Markup(_replayed()).find("svg")
    assert [picture["role"] for picture in pictures] == ["img"]
    assert pictures[0]["aria-label"].startswith("The same 40 requests wait ")


def test_of_a_long_trial_the_stretch_that_differs_most_is_played_and_named() -> None:
    worker = np.where(np.arange(200) % 2, 1.0, 2.0)
    worker[120:150] = 1.0  # for a while, all to one
    markup = _replayed(number=200, worker=worker)
    requests = _data(markup)["scenes"][0]["requests"]
    assert len(requests) == 60
    assert [request["worker"] for request in requests].count(1) >= 40
    assert ", of a stretch of 60 of its 200, was due" in markup


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 1},
        {"workers": 64},
        {"utilisation": 1.0},
        {"utilisation": float("nan")},
        {"valid": False},
        {"arrivals": "constant"},
        {"keepalive": True},
        {"dispatch": "shared"},
        {"topology": "offload"},
    ],
)
def test_a_trial_in_which_nothing_would_be_seen_is_not_played(changes: dict[str, Any]) -> None:
    assert _replayed()
    assert _replayed([HASHED | changes]) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "timeout"},
        {"service_s": float("nan")},
        {"service_s": -1.0},
        {"service_s": float("inf")},
        {"worker": float("nan")},
        {"worker": 1.0},
        {"worker": np.arange(40.0) % 3},
        {"number": 1, "worker": 1.0},
    ],
)
def test_records_that_do_not_say_enough_are_not_played(changes: dict[str, Any]) -> None:
    assert _replayed(**changes) == ""


def test_a_run_without_notebook_05_has_no_replay() -> None:
    assert section(Recorded(trials(HASHED).iloc[:0], _records())) == ""


def test_names_of_an_imported_run_are_text() -> None:
    markup = _replayed([HASHED | {"trial_id": "</script><script>alert(1)</script>"}])
    assert len(Markup(markup).find("script")) == 2
    assert "</script><script>alert(1)</script>" in Markup(markup).text("figcaption")


# In a browser.


@cache
def _of_reference() -> str:
    """Return the replay of the run that is kept with the code."""
    return section(run_in(ROOT / "data/reference"))


def _write(folder: Path, body: str) -> Path:
    css = (TEMPLATES / "replay.css").read_text()
    page = folder / "page.html"
    page.write_text(
        f'<!DOCTYPE html><html lang="en"><head><title>Replay</title><meta charset="utf-8">'
        f"<style>{css}</style></head><body><main>{body}</main></body></html>"
    )
    return page


@pytest.fixture
def page(reader: Reader, tmp_path: Path) -> Page:
    """The replay of the reference run."""
    markup = _of_reference()
    page = reader.open(_write(tmp_path, f"<h1>05</h1>{markup}"))
    page.wait_for_selector(".replay[data-t]")
    return page


PLACES = ("coming", "waiting", "working", "done")


def _counts(page: Page) -> list[list[int]]:
    found = page.locator(".scene").evaluate_all(
        "(scenes, places) => scenes.map(({ dataset }) => places.map((place) => Number(dataset[place])))",
        PLACES,
    )
    return [list(each) for each in found]


def _t(page: Page) -> float:
    return float(page.locator(".replay").get_attribute("data-t") or "nan")


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
    assert _t(page) == data["at"]
    assert page.locator("button").text_content() == "Play"
    for scene, counts in zip(data["scenes"], _counts(page), strict=True):
        waiting = sum(one["due"] <= data["at"] < one["start"] for one in scene["requests"])
        assert counts[1] == waiting
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    page.wait_for_selector(".replay[data-t]")
    assert page.locator(".replay").get_attribute("data-playing") == "false"
    assert _t(page) == data["at"]


def test_every_request_is_in_one_place_at_every_time(page: Page) -> None:
    scenes = json.loads(page.locator("#replay-data").text_content() or "")["scenes"]
    highest = int(page.locator("input").get_attribute("max") or "")
    for position in (0, 31, 100, 170, highest):
        _set(page, position)
        t = _t(page)
        for i, (scene, counts) in enumerate(zip(scenes, _counts(page), strict=True)):
            due, start, end = (
                np.array([one[key] for one in scene["requests"]]) for key in ("due", "start", "end")
            )
            known = [
                (t < due).sum(),
                ((due <= t) & (t < start)).sum(),
                ((start <= t) & (t < end)).sum(),
                (end <= t).sum(),
            ]
            assert counts == known
            dots = page.locator(".scene").nth(i).locator("circle")
            assert dots.count() == len(due)
            looks = dots.evaluate_all("(dots) => dots.map((dot) => dot.classList[0])")
            assert [looks.count(place) for place in PLACES] == known
    assert _counts(page)[0] == [0, 0, 0, len(scenes[0]["requests"])]


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
    held = _t(page)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert _t(page) == held > 0


def test_it_ends_where_the_last_request_does_and_begins_again(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    _set(page, 238)
    page.get_by_role("button").click()
    page.wait_for_selector(".replay[data-playing=false]")
    assert page.locator("button").text_content() == "Play"
    ended = _t(page)
    page.get_by_role("button").click()
    page.wait_for_function("document.querySelector('.replay').dataset.playing === 'true'")
    assert _t(page) < ended


def test_the_slider_is_for_the_keyboard_too_and_says_the_time(page: Page) -> None:
    slider = page.get_by_role("slider", name="Time")
    before = _t(page)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert 0 < before - _t(page) < 0.05 * before
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
    page.goto(_write(tmp_path, _of_reference()).as_uri())
    assert page.locator("svg.replay-still").is_visible()
    assert not page.locator("button").count()
    context.close()


MODEL = """
class Model {
  constructor(values) { Object.assign(this, { values, heard: [] }); }
  get(name) { return this.values[name]; }
  on(event, then) { this.heard.push([event, then]); }
  off(event, then) { this.heard = this.heard.filter((one) => one[0] !== event || one[1] !== then); }
  set(name, value) {
    this.values[name] = value;
    for (const [event, then] of this.heard) if (event === `change:${name}`) then();
  }
}
"""


@pytest.fixture
def widget(reader: Reader, tmp_path: Path) -> Page:
    """A page in which `shown(values)` renders a widget with a model of these values, as anywidget does."""
    script = (TEMPLATES / "replay.js").read_text().replace("export default ", "const widget = ")
    body = f"""<div id="here"></div><script type="module">{script}{MODEL}
      window.shown = (values) => {{
        window.model = new Model(values);
        window.end = widget.render({{ model, el: document.getElementById("here") }});
      }};</script>"""
    page = reader.open(_write(tmp_path, body))
    page.wait_for_function("window.shown !== undefined")
    return page


def _scene(*requests: tuple[float, float | None, float | None, int | None], **more: Any) -> dict[str, Any]:
    names = ("due", "start", "end", "worker")
    rows = [dict(zip(names, request, strict=True)) for request in requests]
    return {"title": "two <b>workers</b>", "workers": 2, "requests": rows} | more


def test_anywidget_renders_a_models_scenes_follows_them_and_cleans_up(widget: Page, reader: Reader) -> None:
    widget.evaluate(
        "(scenes) => shown({ scenes, at: 1.5 })",
        [_scene((0, 0, 1, 0), (1, 2, 3, 1), (1.2, None, None, None))],
    )
    assert _counts(widget) == [[0, 2, 0, 1]]
    assert _t(widget) == 1.5
    assert widget.locator(".title").text_content() == "two <b>workers</b>", "names are text"
    widget.evaluate(
        "(scenes) => model.set('scenes', scenes)", [_scene((0, 0, 1, 0)), _scene((1, 1, None, 1))]
    )
    assert _counts(widget) == [[0, 0, 0, 1], [0, 0, 1, 0]]
    assert widget.locator("circle").count() == 2, "dots of requests that are gone are gone"
    widget.evaluate("end()")
    assert widget.locator(".replay").count() == 0
    assert widget.evaluate("model.heard.length") == 0
    assert reader.errors == []


def test_requests_wait_at_their_worker_if_they_have_one_else_in_the_queue_for_all(widget: Page) -> None:
    requests = [(0.0, 5.0, 6.0, 1), (0.0, 5.0, 6.0, 1), (0.0, None, None, None), (0.0, None, None, 7)]
    heights = []
    for more in ({}, {"queue": "shared"}):
        widget.evaluate("(scenes) => shown({ scenes, at: 1 })", [_scene(*requests, **more)])
        places = widget.locator("circle").evaluate_all(
            "(dots) => dots.map((dot) => dot.getAttribute('transform').match(/[\\d.]+/g).map(Number))"
        )
        heights.append([y for _, y in places])
        assert len({tuple(place) for place in places}) == 4, "no two are in the same place"
    assert heights[0][0] == heights[0][1] > heights[0][2] == heights[0][3], "there is no worker 8"
    assert len(set(heights[1])) == 1


def test_a_live_scene_follows_its_last_event_without_a_slider_and_never_back(
    widget: Page, reader: Reader
) -> None:
    widget.emulate_media(reduced_motion="no-preference")
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_scene()])
    assert widget.locator("input, button").count() == 0
    times = widget.evaluate("""async () => {
      const began = performance.now(), times = [];
      while (performance.now() - began < 900) {
        const now = (performance.now() - began) / 1000 + 100;
        const requests = Array.from({ length: 60 }, (_, i) => {
          const due = now - i / 20;
          return i ? { due, start: due, end: due + 0.04, worker: i % 2 } : { due, start: null, end: null };
        });
        model.set("scenes", [{ title: "live", workers: 2, requests: requests.reverse() }]);
        for (let i = 0; i < 4; i += 1) {
          await new Promise(requestAnimationFrame);
          times.push(Number(document.querySelector(".replay").dataset.t));
        }
      }
      return times;
    }""")
    assert (np.diff(times) >= 0).all()
    assert 100 < times[-1] < 101.5
    assert sum(_counts(widget)[0]) == 60
    assert reader.errors == []


def test_a_live_scene_shows_the_latest_seconds_alone(widget: Page) -> None:
    old, late = (1.0, 1.0, 1.1, 0), (49.0, 49.0, 50.0, 1)
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_scene(old, (2.0, None, None, None), late)])
    assert _counts(widget) == [[0, 1, 0, 1]], "what still waits is shown, however old"
    assert _t(widget) == 50, "with reduced motion, at once"
