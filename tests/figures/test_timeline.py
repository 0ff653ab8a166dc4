"""Latency over time: few requests are dots, many a heat map with a lane for each worker; none is lost."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lab.figures import canvas, timeline

TITLE = "What it says"


def _attack(count: int, workers: int = 2) -> pd.DataFrame:
    due_s = np.arange(count) / 50
    return pd.DataFrame(
        {"due_s": due_s, "end_s": due_s + 0.02 + 0.001 * np.arange(count), "outcome": "ok"}
    ).assign(worker=10 + np.arange(count) % workers, latency_s=lambda rows: rows["end_s"] - rows["due_s"])


def _cells(axes: Axes) -> Any:
    """Return the counts of a heat map, by latency and time."""
    counts: Any = axes.collections[0].get_array()
    return np.ma.filled(counts, 0)


def test_few_requests_are_dots_and_many_a_heat_map_that_loses_none() -> None:
    for count, many in ((timeline.MANY - 2, False), (timeline.MANY, True)):
        lanes = timeline.workers_apart(_attack(count))
        assert [name for name, _ in lanes] == ["worker 1", "worker 2"]
        with canvas(TITLE, rows=2, sharex=True, sharey=True) as (_, panels):
            timeline.draw_lanes(panels, lanes)
        drawn = [_cells(axes).sum() for axes in panels if axes.collections]
        dots = sum(len(np.asarray(line.get_xdata())) for axes in panels for line in axes.lines)
        assert (sum(drawn), dots) == ((count, 0) if many else (0, count))


def test_a_queue_climbs_in_the_lane_of_the_worker_that_has_it() -> None:
    """Worker 2 falls behind: its requests are ever later, those of worker 1 are not."""
    rows = _attack(1000)
    rows.loc[rows["worker"] == 10, "latency_s"] = 0.02
    with canvas(TITLE, rows=2, sharex=True, sharey=True) as (_, panels):
        timeline.draw_lanes(panels, timeline.workers_apart(rows))
    heights = []
    for axes in panels:
        cells = _cells(axes)
        heights.append([int(np.argmax(cells[:, moment])) for moment in (1, cells.shape[1] - 2)])
    (calm_first, calm_last), (queue_first, queue_last) = heights
    assert calm_first == calm_last
    assert queue_last > queue_first + 10


def test_workers_beyond_a_few_share_a_lane_and_unanswered_requests_have_their_own() -> None:
    ((name, rows),) = timeline.workers_apart(_attack(100, workers=20))
    assert (name, len(rows)) == ("all 20 workers", 100)
    some = _attack(100)
    some.loc[90:, "worker"] = np.nan
    lanes = dict(timeline.workers_apart(some))
    assert {name: len(rows) for name, rows in lanes.items()} == {
        "worker 1": 45, "worker 2": 45, timeline.NOBODY: 10,
    }  # fmt: skip


def test_requests_of_a_server_that_names_no_workers_share_one_lane() -> None:
    """Such as those of the stalled server of 08, at the rates of the full profile."""
    requests = _attack(timeline.MANY).drop(columns="worker")
    ((name, rows),) = timeline.workers_apart(requests)
    assert (name, len(rows)) == ("", timeline.MANY)
