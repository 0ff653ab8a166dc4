"""The panel without a browser: what its controls do, and when it stops by itself."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.clients import gone, until

from lab.playground import Panel, Parameters
from lab.playground import panel as module

SETTINGS: dict[str, Any] = {
    "topology": "cluster", "dispatch": "round-robin", "workers": 1, "kernel": "python", "iterations": 1000,
    "arrivals": "constant", "rate": 50.0,
}  # fmt: skip


@pytest.fixture
def panel() -> Iterator[Panel]:
    panel = Panel(Parameters.from_batch({}, SETTINGS))
    yield panel
    panel.engine.stop()


def parts(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def control(panel: Panel, name: str) -> Any:
    return next(one for one in parts(panel) if getattr(one, "description", "") == name)


def state(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in parts(panel) if isinstance(one, module.Live)).state
    return found


def start(panel: Panel) -> list[int]:
    control(panel, "Start").click()
    until(lambda: state(panel)["running"] and state(panel)["workers"])
    return panel.engine.pids


def test_it_begins_stopped_with_a_hint(panel: Panel) -> None:
    assert state(panel)["said"] == module.HINT
    assert not panel.engine.is_running
    assert [control(panel, name).disabled for name in ("Start", "Stop", "Kill a worker")] == [
        False,
        True,
        True,
    ]
    assert "JupyterLab" in repr(panel)


def test_controls_drive_the_engine(panel: Panel) -> None:
    start(panel)
    assert control(panel, "dispatch").disabled
    control(panel, "requests/s").value = 200.0
    until(lambda: panel.engine.moment().rate_rps == 200)
    control(panel, "workers").value = 2
    until(lambda: len(state(panel)["workers"]) == 2)
    control(panel, "Kill a worker").click()
    until(lambda: any("restarts" in worker["about"] for worker in state(panel)["workers"]))
    assert [text for _, text in state(panel)["charts"][0]["events"]] == ["2 workers", "kill"]
    control(panel, "Stop").click()
    until(lambda: state(panel)["said"].startswith("Stopped. Of "))
    assert not state(panel)["running"]
    assert not control(panel, "Start").disabled


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [("workers", 0, "workers must be at least 1"), ("workers", 10**6, "at most")],
)
def test_bad_settings_give_one_line(panel: Panel, name: str, value: int, complaint: str) -> None:
    control(panel, name).value = value
    control(panel, "Start").click()
    until(lambda: state(panel)["bad"])
    assert complaint in state(panel)["said"]
    assert "\n" not in state(panel)["said"]
    assert not panel.engine.is_running
    until(lambda: not control(panel, "Start").disabled)


@pytest.mark.parametrize(
    ("after_s", "why"),
    [(module.UNSEEN_S, "Nobody watches."), (module.UNTOUCHED_S, "Nobody has touched it")],
)
def test_it_stops_when_nobody_needs_it(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, after_s: float, why: str
) -> None:
    pids = start(panel)
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + after_s, sleep=time.sleep)
    monkeypatch.setattr(module, "time", later)
    until(lambda: not panel.engine.is_running)
    until(lambda: state(panel)["said"].startswith(why))
    assert all(gone(pid) for pid in pids)
