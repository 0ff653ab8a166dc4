"""Figures: titled, with units, readable in grey, drawn from hostile data too, and forgotten by pyplot."""

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.busy_workers import measured
from helpers.drawn_labels import overlaps
from helpers.trial_rows import found_rates, trials
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.experiments import hot_loop, rate_sweep, single_vs_cluster
from lab.experiments.worker_scaling import answer as scaling_answer
from lab.experiments.worker_scaling import scaling
from lab.figures import (
    MOST_BYTES,
    picture,
    server_look,
    title_of,
)
from lab.study import plan

TITLE = "What it says"
SERVERS: tuple[dict[str, Any], ...] = ({}, {"topology": "cluster", "workers": 2})
NAMES = ("one process", "2 workers, round-robin")


def _loops() -> pd.DataFrame:
    rows = [
        (kernel, n * base_s) for kernel, base_s in (("python", 0.09), ("numpy", 0.009)) for n in (1, 2, 3)
    ]
    return pd.DataFrame(rows, columns=["kernel", "wall_s"])


def _article() -> pd.DataFrame:
    """Make trials whose load is too much for one process: 10 requests at 10/s, 150 ms each."""
    return trials(*SERVERS, duration_s=1.0, service_mean_s=0.15)


def _requests(**changes: Any) -> pd.DataFrame:
    """Make requests of both servers, the last of each failed."""
    rows = [
        {"topology": "single", "workers": 1, "dispatch": "round-robin", **server, "due_s": n / 10}
        for server in SERVERS
        for n in range(10)
    ]
    outcomes = ["ok"] * 9 + ["timeout"]
    return pd.DataFrame(rows).assign(latency_s=0.15, outcome=outcomes * 2, **changes)


def _sweep(**changes: Any) -> pd.DataFrame:
    rows = [
        {**server, "rate": rate, "throughput_rps": min(rate, 11)}
        for server in SERVERS
        for rate in (5.0, 12.0)
    ]
    return trials(*rows, **changes)


def _scaled() -> pd.DataFrame:
    return measured(*[{1: 10.0, 2: 18.0, 4: 17.0}] * 6)


def loop_times() -> Figure:
    loops = _loops().assign(cpu_s=0.0)
    return hot_loop.figure(loops, hot_loop.costs(loops))


def latency_over_time() -> Figure:
    return single_vs_cluster.figure(_article(), _requests())


def rate_sweep_figure() -> Figure:
    return rate_sweep.figure(_sweep(), found_rates())


def worker_scaling_figure() -> Figure:
    return _known(scaling_answer.figure(_scaled(), 2))


def speedup_stack() -> Figure:
    return _known(scaling_answer.stack_figure(scaling.stacks(_scaled()), 2))


def _known(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


every_figure = pytest.mark.parametrize(
    "draw",
    [loop_times, latency_over_time, rate_sweep_figure, worker_scaling_figure, speedup_stack],
    ids=lambda draw: draw.__name__,
)


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_cpus", lambda: 2)


@pytest.fixture(autouse=True)
def _pyplot_keeps_nothing() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


def _texts(axes: Axes) -> str:
    """Return every note that stands on the axes."""
    return " | ".join(text.get_text() for text in axes.texts)


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def _lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.lines]


def _drawn(figure: Figure) -> bytes:
    """Draw it in earnest: much of what can go wrong does so only then."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@every_figure
def test_it_has_a_title_and_names_its_axes_with_their_units(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert title_of(figure)
    for axes in figure.axes:
        assert axes.get_ylabel() or [tick.get_text() for tick in axes.get_yticklabels()] == [
            "numpy",
            "python",
        ]
    across = figure.axes[-1].get_xlabel()
    labels = [across, *(axes.get_ylabel() for axes in figure.axes)]
    unit = (
        ", s",
        ", ms",
        "latency (log scale)",
        "in loops",
        "share of",
        "utilisation",
        "requests/s",
        "% of",
        "workers",
    )
    assert all(any(word in label for word in unit) for label in labels if label), labels
    assert across
    assert _drawn(figure).startswith(b"\x89PNG")


@every_figure
def test_series_differ_without_their_colour(draw: Callable[[], Figure]) -> None:
    for axes in draw().axes:
        handles, labels = axes.get_legend_handles_labels()
        looks = [
            (str(line.get_marker()), str(line.get_linestyle()), line.get_markerfacecolor() == "white")
            for line in (getattr(handle, "lines", [handle])[0] for handle in handles)
        ]
        assert len(set(looks)) == len(labels), dict(zip(labels, looks, strict=True))


def test_loop_times_show_every_loop_and_say_the_medians() -> None:
    (axes,) = loop_times().axes
    points = sorted(x for line in _lines(axes) if len(line) == 3 for x, _ in line)
    assert points == pytest.approx([9, 18, 27, 90, 180, 270])
    assert _texts(axes) == "18.0 ms | 180 ms"


def test_latency_over_time_marks_failures_and_draws_the_theory_and_the_loop() -> None:
    (axes,) = latency_over_time().axes
    assert _legend(axes) == [name + what for name in NAMES for what in ("", ": failed")]
    assert _texts(axes).count("theory") == 2
    assert "the loop alone" in _texts(axes)
    assert [len(line) for line in _lines(axes)] == [9, 1, 9, 1, 10, 10, 2]
    assert axes.get_ylim()[1] > 0.1 + 9 * 0.05


def test_latency_over_time_has_no_entry_for_failures_that_were_not() -> None:
    (axes,) = single_vs_cluster.figure(_article(), _requests().assign(outcome="ok")).axes
    assert _legend(axes) == list(NAMES)


def test_requests_without_a_latency_are_not_drawn_and_do_no_harm() -> None:
    figure = single_vs_cluster.figure(_article(), _requests().assign(latency_s=math.nan))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.12 * (0.15 + 9 * 0.05))
    assert _drawn(figure)


@pytest.mark.parametrize(("slower", "behind"), [(1.0, (1, 0)), (0.5, (0, 0)), (2.0, (1, 1))])
def test_the_title_says_who_falls_behind(slower: float, behind: tuple[int, int]) -> None:
    trials = _article().assign(service_mean_s=0.15 * slower)
    assert title_of(single_vs_cluster.figure(trials, _requests())) == (
        "Fell behind at 10.0/s: one process in {} of 1 block, the cluster in {} of 1 block".format(*behind)
    )


def test_the_sweep_has_an_ideal_line_and_a_band_for_each_server() -> None:
    figure = rate_sweep_figure()
    answered, latency = figure.axes
    assert _legend(answered) == list(NAMES)
    assert "ideal" in _texts(answered)
    (ideal,) = [line for line in _lines(answered) if len(line) == 3]
    assert np.array(ideal) == pytest.approx(np.array([(0, 0), (1, 1), (1.2, 1)]))
    bands = [
        patch.get_extents().transformed(answered.transData.inverted()).intervalx for patch in answered.patches
    ]
    assert np.array(bands) == pytest.approx(np.array([(0.9, 0.95), (0.85, 0.9)]))
    assert [text.get_text() for text in latency.texts] == ["SLO for p95", *["p95", "p50"] * 2]
    assert latency.get_yscale() == "log"
    assert title_of(figure) == "Sustained: one process 90 to 95 %, 2 workers 85 to 90 % of the own limit"


def test_the_sweeps_line_joins_the_medians_of_its_blocks() -> None:
    blocks = pd.concat([_sweep().assign(busy_rps=rate) for rate in (1.0, 2.0, 9.0)])
    answered = rate_sweep.figure(blocks, found_rates()).axes[0]
    (line,) = [line for line in _lines(answered) if len(line) == 2 and line[0][0] == pytest.approx(0.5)]
    assert np.array(line) == pytest.approx(np.array([(0.5, 0.2), (1.2, 0.2)]))


def test_a_sustained_rate_without_a_bound_has_no_band() -> None:
    found = found_rates(lower_rps=math.nan, lower_share=math.nan, reason="even 1.00/s is too much")
    assert not rate_sweep.figure(_sweep(), found).axes[0].patches


def test_a_server_without_a_single_answer_is_drawn() -> None:
    nothing = {"latency_p50_s": math.nan, "latency_p99_s": math.nan, "success": 0.0, "throughput_rps": 0.0}
    dead = _sweep()
    dead.loc[dead["topology"] == "single", list(nothing)] = list(nothing.values())
    assert _drawn(rate_sweep.figure(dead, found_rates()))


def test_scaling_has_the_ideal_line_the_cpus_and_every_trial() -> None:
    (rate,) = worker_scaling_figure().axes
    assert np.array(_lines(rate)[0]) == pytest.approx(np.array([(0, 0), (4, 40)]))
    by_length = {len(line): line for line in _lines(rate)}
    assert np.array(by_length[3]) == pytest.approx(np.array([(1, 10), (2, 18), (4, 17)]))
    assert 18 in by_length, "a point per trial"
    assert "ideal" in _texts(rate)
    assert "2 CPUs" in _texts(rate)
    assert _legend(rate) == ["highest throughput; a dot is a trial"]


def test_sustained_rates_are_drawn_from_their_lower_bound_and_left_out_without_one() -> None:
    bounds = {"workers": [1, 2, 4], "lower_rps": [9.0, 17.0, math.nan], "upper_rps": [10.0, 18.0, 5.0]}
    bounds |= {"reason": ["", "", "even 5.00/s is too much"]}
    (rate,) = _known(scaling_answer.figure(_scaled(), 2, pd.DataFrame(bounds))).axes
    assert [(1, 9), (2, 17)] in _lines(rate)
    assert "sustained rate, between its bounds" in _legend(rate)


def _color(line: Any) -> Any:
    return line.get_color()


def test_the_same_servers_look_alike_in_different_notebooks() -> None:
    article, sweep = latency_over_time().axes[0], rate_sweep_figure().axes[0]
    of_article, of_sweep = (
        {text: to_rgb(_color(line)) for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        for axes in (article, sweep)
    )
    for name in NAMES:
        assert of_article[name] == of_sweep[name] == to_rgb(server_look(name).color)


@every_figure
def test_no_label_covers_another_and_none_is_cut_off(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert overlaps(figure) == []
    renderer = FigureCanvasAgg(figure).get_renderer()
    axis_names = [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
    titles = [axes.title for axes in figure.axes] + [axes._left_title for axes in figure.axes]  # type: ignore[attr-defined]
    for text in [*axis_names, *titles, *(text for axes in figure.axes for text in axes.texts), *figure.texts]:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert -1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1, text.get_text()


@every_figure
def test_a_picture_for_a_page_is_light(draw: Callable[[], Figure]) -> None:
    kind, content = picture(draw())
    assert len(content) <= MOST_BYTES
    assert kind in ("image/svg+xml", "image/png")


def test_many_requests_of_the_article_have_a_lane_for_one_process_and_for_each_worker() -> None:
    rows = pd.concat([_requests().assign(trial_id="t", worker=7)] * 20, ignore_index=True)
    cluster = rows["topology"] == "cluster"
    rows.loc[cluster, "worker"] = 8 + np.arange(cluster.sum()) % 2
    rows["end_s"] = rows["due_s"] + rows["latency_s"]
    figure = single_vs_cluster.figure(_article(), rows)
    names = [axes.texts[0].get_text() for axes in figure.axes]
    assert names == [NAMES[0], f"{NAMES[1]}: worker 1", f"{NAMES[1]}: worker 2"]
    assert all("theory" in _texts(axes) for axes in figure.axes)


def test_a_fraction_of_a_cpu_is_named_as_one() -> None:
    (rate,) = _known(scaling_answer.figure(_scaled(), 1.5)).axes
    assert "1.5 CPUs" in _texts(rate)


def test_scaling_without_a_base_has_no_figure() -> None:
    assert scaling_answer.figure(measured({2: 18.0}), 2) is None
    assert scaling_answer.stack_figure(scaling.stacks(measured({2: 18.0})), 2) is None


def test_the_stack_fills_each_bar_from_the_measured_speedup_to_the_ideal() -> None:
    figure = speedup_stack()
    (axes,) = figure.axes
    tops = {1: 0.0, 2: 0.0, 4: 0.0}
    for bar in axes.patches:
        assert isinstance(bar, Rectangle)
        workers = (1, 2, 4)[round(bar.get_x() + bar.get_width() / 2)]
        tops[workers] = max(tops[workers], bar.get_y() + bar.get_height())
    assert tops == pytest.approx({1: 1, 2: 2, 4: 4})
    assert "1.70\nof 4" in _texts(axes)
    assert "waiting for a CPU: 1.86" in _texts(axes)
    assert "idle" not in _texts(axes), "what is too thin to see has no name"
    assert title_of(figure) == "4 workers on 2 CPUs: 47 % of the ideal is waiting for a CPU"


def test_a_gain_of_one_factor_is_named_where_the_stack_stands_above_the_ideal() -> None:
    """More CPU time is lost to waiting than the speed-up lacks, as loops need less of it."""
    rows = _scaled()
    rows["loop_cpu_s"] *= np.where(rows["workers"] == 4, 0.8, 1)
    (axes,) = _known(scaling_answer.stack_figure(scaling.stacks(rows), 2)).axes
    assert "gained elsewhere: 0.16" in _texts(axes)
    assert "gained" not in _texts(speedup_stack().axes[0])


def test_a_loss_that_cannot_be_told_is_not_in_the_title() -> None:
    few = scaling.stacks(measured(*[{1: 10.0, 2: 18.0, 4: 17.0}] * 5))
    title = title_of(_known(scaling_answer.stack_figure(few, 2)))
    assert title == "Where the rest of the ideal speed-up went"


def test_the_style_stays_with_the_figure() -> None:
    before = dict(plt.rcParams)
    rate_sweep_figure()
    assert dict(plt.rcParams) == before
