"""The playground's widgets as anywidget renders them, without a kernel: values in, pictures out."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import Reader
from helpers.replays import TEMPLATES, counts, time_s, widget_in
from playwright.sync_api import Page

PLAYGROUND = Path(__file__).parents[2] / "lab/playground"


@pytest.fixture
def widget(reader: Reader, tmp_path: Path) -> Page:
    """The replay, as a widget."""
    return widget_in(reader, tmp_path, TEMPLATES / "replay.js")


def _scene(*requests: tuple[float, float | None, float | None, int | None], **more: Any) -> dict[str, Any]:
    names = ("due", "start", "end", "worker")
    rows = [dict(zip(names, request, strict=True)) for request in requests]
    return {"title": "two <b>workers</b>", "workers": 2, "requests": rows} | more


def test_anywidget_renders_a_models_scenes_follows_them_and_cleans_up(widget: Page, reader: Reader) -> None:
    widget.evaluate(
        "(scenes) => shown({ scenes, at: 1.5 })",
        [_scene((0, 0, 1, 0), (1, 2, 3, 1), (1.2, None, None, None))],
    )
    assert counts(widget) == [[0, 2, 0, 1]]
    assert time_s(widget) == 1.5
    assert widget.locator(".title").text_content() == "two <b>workers</b>", "names are text"
    widget.evaluate(
        "(scenes) => model.set('scenes', scenes)", [_scene((0, 0, 1, 0)), _scene((1, 1, None, 1))]
    )
    assert counts(widget) == [[0, 0, 0, 1], [0, 0, 1, 0]]
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


def _live(now: float, *requests: tuple[float, float | None, float | None, int | None], **more: Any) -> Any:
    return _scene(*requests, **{"now": now, "busy": [], "more": 0} | more)


def test_a_live_scene_follows_the_present_without_a_slider_and_never_back(
    widget: Page, reader: Reader
) -> None:
    widget.emulate_media(reduced_motion="no-preference")
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_live(0.0)])
    assert widget.locator("input, button").count() == 0
    times = widget.evaluate("""async () => {
      const began = performance.now(), times = [];
      while (performance.now() - began < 900) {
        const now = (performance.now() - began) / 1000 + 100;
        const requests = Array.from({ length: 60 }, (_, i) => {
          const due = now - i / 20;
          return i ? { due, start: due, end: due + 0.04, worker: i % 2 } : { due, start: null, end: null };
        });
        model.set("scenes", [{ title: "live", workers: 2, requests: requests.reverse(), now }]);
        for (let i = 0; i < 4; i += 1) {
          await new Promise(requestAnimationFrame);
          times.push(Number(document.querySelector(".replay").dataset.t));
        }
      }
      return times;
    }""")
    assert (np.diff(times) >= 0).all()
    assert 100 < times[-1] < 101.5
    assert sum(counts(widget)[0]) == 60
    assert reader.errors == []


def _looks(widget: Page) -> list[tuple[str, str]]:
    """Return how each worker looks, and what stands in it."""
    boxes = widget.locator(".scene g > g").filter(has=widget.locator(".busy, .idle")).all()
    return [(str(box.locator("rect").last.get_attribute("class")), box.text_content() or "") for box in boxes]


def test_in_overload_workers_are_busy_though_they_answered_long_ago(widget: Page) -> None:
    """Loops take a second, and nothing has ended since: what was in a worker then is known, and no later."""
    served = [(40.0, 48.2, 49.2, 0), (40.1, 48.6, 49.6, 1)]
    waiting = [(40.2 + k, None, None, None) for k in range(10)]
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_live(50.0, *served, *waiting, more=3000)])
    assert time_s(widget) == 49.0, "with reduced motion, at once"
    assert _looks(widget) == [("busy", "worker 1"), ("busy", "worker 2")]
    due_since = sum(due > 49 for due, *_ in waiting)
    assert counts(widget) == [[due_since, len(waiting) - due_since, 2, 0]]
    assert widget.locator(".said b").first.text_content() == f"{3000 + len(waiting) - due_since:,}"


def test_a_request_that_is_in_a_worker_for_long_is_drawn_there(widget: Page) -> None:
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_live(50.0, (40.0, 41.0, None, 1))])
    assert _looks(widget) == [("idle", "idle"), ("busy", "worker 2")]
    assert counts(widget) == [[0, 0, 1, 0]]


def test_a_worker_that_is_busy_with_what_is_not_drawn_looks_busy(widget: Page) -> None:
    """With a request that blocks it, or with those that their clients gave up."""
    scene = _live(50.0, (49.0, None, None, None), busy=[0])
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [scene])
    assert _looks(widget) == [("busy", "worker 1"), ("idle", "idle")]
    assert counts(widget) == [[0, 1, 0, 0]]


def test_a_worker_for_which_a_request_waits_is_not_idle_between_two(widget: Page) -> None:
    one, next_one = (49.0, 49.0, 49.4, 0), (49.1, 49.6, 50.0, 0)
    widget.evaluate("(scenes) => shown({ scenes, at: 49.5 })", [_scene(one, next_one)])
    assert _looks(widget) == [("busy", "worker 1"), ("idle", "idle")]


def test_a_live_scene_that_begins_again_is_followed_from_there(widget: Page) -> None:
    widget.emulate_media(reduced_motion="no-preference")
    widget.evaluate("(scenes) => shown({ scenes, live: true })", [_live(100.0)])
    widget.wait_for_function("document.querySelector('.replay').dataset.t > 99")
    widget.evaluate("(scenes) => model.set('scenes', scenes)", [_live(1.0)])
    widget.wait_for_function("document.querySelector('.replay').dataset.t == 1")
    assert widget.locator(".replay").get_attribute("data-t") == "1"
    widget.evaluate("end()")


STATE: dict[str, Any] = {
    "running": True, "at": 1.0, "said": "Running.", "bad": False, "tiles": [], "charts": [], "workers": [],
    "fair": None,
}  # fmt: skip


@pytest.fixture
def numbers(reader: Reader, tmp_path: Path) -> Page:
    """The live numbers, as a widget, with a clock that the test sets forward."""
    reader.page.clock.install(time="2026-01-01T12:00:00")
    page = widget_in(reader, tmp_path, PLAYGROUND / "live.js")
    page.clock.pause_at("2026-01-01T13:00:00")
    return page


def test_that_no_news_comes_is_said_while_it_runs_and_until_some_comes(numbers: Page, reader: Reader) -> None:
    numbers.evaluate("(state) => shown({ state })", STATE)
    said, running = numbers.locator(".said"), numbers.locator(".playground.running")
    numbers.clock.run_for(4000)
    assert said.text_content() == "Running."
    numbers.clock.run_for(3000)
    silent = said.text_content() or ""
    assert silent.startswith("No news since ")
    assert "is the kernel alive? If it was restarted, run all cells again." in silent
    assert running.count() == 0
    numbers.clock.run_for(60_000)
    assert said.text_content() == silent, "once is enough for who hears it read"
    numbers.evaluate("(state) => model.set('state', state)", STATE)
    assert said.text_content() == "Running."
    assert running.count() == 1
    assert reader.errors == []


def _chart(*events: str, **lines: list[float]) -> dict[str, Any]:
    """Make a chart of the last minute, the last of its events now."""
    points = {name: [[60.0 * i / (len(ys) - 1), y] for i, y in enumerate(ys)] for name, ys in lines.items()}
    return {
        "title": "p99 of latency", "alt": "p99", "log": True, "now": 60.0,
        "events": [[60.0 - 4 * i, text] for i, text in enumerate(reversed(events))][::-1],
        "lines": [{"name": name, "points": ys} for name, ys in points.items()],
    }  # fmt: skip


LETTERS = """() => [...document.querySelectorAll('.charts text')].map((one) => {
  const box = one.getBoundingClientRect(), size = parseFloat(getComputedStyle(one).fontSize);
  return [one.textContent, size * one.getScreenCTM().a, box.left, box.right, box.top + 1, box.bottom - 1];
})"""


@pytest.mark.parametrize("width", [336, 420, 760, 1280])
def test_words_in_charts_can_be_read_and_lie_apart_in_every_panel(
    reader: Reader, tmp_path: Path, width: int
) -> None:
    page = widget_in(reader, tmp_path, PLAYGROUND / "live.js")
    alike = _chart(
        "kill", "block", "2 workers", "recycle", offered=[200, 201], theory=[200, 205], measured=[190, 199]
    )
    workers = [{"name": "worker 1", "about": "process 1", "share": 1.0, "text": "100 %"}]
    page.evaluate("(state) => shown({ state })", STATE | {"charts": [alike, alike], "workers": workers})
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_function(
        "() => [...document.querySelectorAll('.charts svg')]"
        ".every((one) => one.viewBox.baseVal.width === one.clientWidth)"
    )
    words = page.evaluate(LETTERS)  # at once: charts are drawn anew as they get their width
    assert {"p99 of latency", "measured", "theory", "offered", "kill", "now"} <= {word for word, *_ in words}
    assert min(size for _, size, *_ in words) >= 10
    assert max(right for _, _, _, right, *_ in words) <= width
    over = [
        (one[0], other[0])
        for one, other in combinations(words, 2)
        if min(one[3], other[3]) > max(one[2], other[2]) and min(one[5], other[5]) > max(one[4], other[4])
    ]
    assert over == []


def test_what_is_stopped_brings_no_news_and_nothing_is_said_of_it(numbers: Page) -> None:
    numbers.evaluate("(state) => shown({ state })", STATE | {"running": False, "said": "Stopped."})
    numbers.clock.run_for(60_000)
    assert numbers.locator(".said").text_content() == "Stopped."
    numbers.evaluate("end()")
    sent = numbers.evaluate("model.sent.length")
    numbers.clock.run_for(60_000)
    assert numbers.evaluate("model.sent.length") == sent
