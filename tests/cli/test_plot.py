"""`lab plot`: its title says what a reader must know first; it draws no more than its requests tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.load_rows import GENERATOR, rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.cli import main
from lab.figures import timeline
from lab.load.attack import summarized
from lab.load.log import Outcome

OK, FAILED, DROPPED, UNFINISHED = Outcome.OK, Outcome.HTTP_ERROR, Outcome.DROPPED, Outcome.UNFINISHED
OVERLOADED = {"cpu_share": 0.99}


@pytest.mark.parametrize(
    ("outcomes", "stopped_s", "health", "title"),
    [
        ([OK] * 100, None, {}, "10.0/s sent, all answered well, p99 20.0 ms"),
        ([OK] * 100, None, OVERLOADED, "Not valid: 10.0/s sent, all answered well, p99 20.0 ms"),
        (
            [OK] * 96 + [FAILED] * 4, None, {},
            "10.0/s sent, 9.60/s answered well, 4 requests failed, p99 20.0 ms",
        ),
        (
            [OK] * 26 + [UNFINISHED] + [DROPPED] * 73, 2.7, {},
            "Interrupted after 2.70 s: 10.0/s sent, 9.63/s answered well, 1 request unanswered, "
            "73 requests not sent, p99 20.0 ms",
        ),
        (
            [OK] * 27 + [DROPPED] * 73, 2.7, OVERLOADED,
            "Interrupted after 2.70 s, not valid: 10.0/s sent, 73 requests not sent, p99 20.0 ms",
        ),
        ([DROPPED] * 100, 0.0, {}, "Interrupted in the warm-up: 0.00/s sent, 100 requests not sent"),
    ],
)  # fmt: skip
def test_the_title_says_what_a_result_is_worth(
    outcomes: list[Outcome],
    stopped_s: float | None,
    health: dict[str, Any],
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {"url": "http://x/", "arrivals": "constant", "rate": 10, "duration_s": 10.0}
    kept: dict[str, Any] = {"generator": GENERATOR | health, "errors": {}, "warmup_errors": {}}
    requests = rows([0.02] * len(outcomes), outcomes)
    summarized(requests, stages=None, stopped_s=stopped_s, **asked, **kept).save(tmp_path / "a.parquet")
    drawn = []

    def drawing(table: pd.DataFrame, requests: pd.DataFrame, title: str, *more: Any, **about: Any) -> Figure:
        drawn.append(title)
        return Figure()

    monkeypatch.setattr(timeline, "over_time", drawing)
    with pytest.raises(SystemExit, match="0"):
        main(["plot", str(tmp_path / "a.parquet")])
    assert drawn == [title]


@pytest.fixture
def plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """Return what `lab plot` draws of requests, with its options, and of what else was asked for."""
    draw, drawn = timeline.over_time, list[Figure]()

    def drawing(*drawn_of: Any, **about: Any) -> Figure:
        drawn.append(draw(*drawn_of, **about))
        return drawn[-1]

    def plot(requests: pd.DataFrame, rate: float, *options: str, **asked: Any) -> Figure:
        usual: dict[str, Any] = {"url": "http://x/", "duration_s": len(requests) / rate, "stopped_s": None}
        kept: dict[str, Any] = {"generator": GENERATOR, "errors": {}, "warmup_errors": {}, "stages": None}
        result = summarized(requests, arrivals="constant", rate=rate, **kept, **(usual | asked))
        result.save(tmp_path / "a.parquet")
        with pytest.raises(SystemExit, match="0"):
            main(["plot", str(tmp_path / "a.parquet"), *options])
        return drawn[-1]

    monkeypatch.setattr(timeline, "over_time", drawing)
    return plot


@pytest.mark.parametrize("stopped_s", [4.0, -1.0])
def test_of_a_long_plan_only_what_was_offered_is_drawn_and_its_end_is_marked(
    stopped_s: float, plot: Callable[..., Figure]
) -> None:
    sent = 40 if stopped_s > 0 else 0
    requests = rows([0.02] * 100_000, [OK] * sent + [DROPPED] * (100_000 - sent))
    figure = plot(requests, 10, url="http://x/?a=$b&c=$d_{", stopped_s=stopped_s)
    first, last = figure.axes[0], figure.axes[-1]
    assert last.get_xlim()[1] <= max(stopped_s, 0) + 1
    assert [text.get_text() for text in first.texts] == ["interrupted"]


def _panel(figure: Figure, label: str) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_ylabel() == label]


def test_a_constant_rate_is_no_comb_and_each_request_is_a_dot(plot: Callable[..., Figure]) -> None:
    """75 requests at 15/s: in tenths of a second, they would come by one and by two."""
    figure = plot(rows([0.02] * 75, interval_s=1 / 15), 15)
    (throughput,), (latency,) = _panel(figure, "requests/s"), _panel(figure, "latency")
    bars = [patch for patch in throughput.patches if isinstance(patch, Rectangle)]
    assert {round(bar.get_height(), 6) for bar in bars} == {15.0}
    assert min(bar.get_height() * bar.get_width() for bar in bars) >= 10, "each of enough requests"
    (dots,) = latency.lines
    assert np.asarray(dots.get_xdata()).tolist() == pytest.approx((np.arange(75) / 15).tolist())
    assert not _panel(figure, "in flight"), "one at a time is no queue"


def test_a_handful_of_requests_has_dots_and_no_rate(plot: Callable[..., Figure]) -> None:
    figure = plot(rows([0.02] * 5, [OK, OK, FAILED, OK, OK], interval_s=1), 1)
    (latency,) = figure.axes
    assert [len(np.asarray(line.get_xdata())) for line in latency.lines] == [4, 1]
    assert not latency.patches


@pytest.mark.parametrize(("rate", "drawn"), [(20.0, {"p50"}), (400.0, {"p50", "p99"})])
def test_a_percentile_is_drawn_only_where_there_are_samples_for_it(
    rate: float, drawn: set[str], plot: Callable[..., Figure]
) -> None:
    """In bins of one second and of two workers, 10 requests have a median and 200 a p99."""
    requests = rows([0.02] * int(30 * rate), interval_s=1 / rate)
    figure = plot(requests, rate, "--bin", "1s")
    lanes = _panel(figure, "latency")
    assert len(lanes) == 2, "one for each worker"
    for axes in lanes:
        assert {str(line.get_label()) for line in axes.lines} == drawn
        assert axes.collections, "many requests are a heat map"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outcomes", [[DROPPED] * 500, [FAILED] * 500, [UNFINISHED], [OK, UNFINISHED]])
def test_whatever_was_kept_is_drawn(
    outcomes: list[Outcome], plot: Callable[..., Figure], tmp_path: Path
) -> None:
    assert plot(rows([0.02] * len(outcomes), outcomes), 10).axes
    assert (tmp_path / "a.svg").stat().st_size > 1000
