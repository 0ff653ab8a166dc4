"""The control: which loop a harness of known speed leads to, and real workers that sleep."""

from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
from helpers.controls import BUSY
from helpers.controls import FED as CONTROLS
from helpers.study_fakes import QUICK

from lab.experiments import control
from lab.experiments.control import LADDER, STEP, Fed, busy_share, shortest_loop
from lab.hotloop import LoopCost
from lab.study.runs import open_run

SPOILT = (BUSY,)

FED = Fed(
    workers=4, iterations=STEP, loop_s=0.002, rate_rps=2400, throughput_rps=1900, share=0.95, generators=1,
    flags=(),
)  # fmt: skip


class Harness:
    """Takes this long over each request beside its loop; counts what it is asked."""

    def __init__(self, overhead_s: float, disturbed: int = 0) -> None:
        self._overhead_s = overhead_s
        self._disturbed = disturbed
        self.asked: list[int] = []

    def __call__(self, iterations: int) -> Fed:
        self.asked.append(iterations)
        loop_s = 0.0018 * iterations / STEP
        flags = SPOILT if len(self.asked) <= self._disturbed else ()
        share = loop_s / (loop_s + self._overhead_s)
        return replace(FED, iterations=iterations, loop_s=loop_s, share=share, flags=flags)


@pytest.mark.parametrize("overhead_s", [0.0001, 0.0005, 0.001, 0.003, 0.009])
def test_the_shortest_loop_that_is_held_is_last(overhead_s: float) -> None:
    *_, found = shortest_loop(Harness(overhead_s))
    share = {i: 0.0018 * i / STEP / (0.0018 * i / STEP + overhead_s) for i in LADDER}
    held = [i for i in LADDER if share[i] >= (control.HELD if i >= control.FIRST else control.SURELY)]
    assert found.held
    assert found.iterations == min(held)


def test_a_harness_that_is_too_slow_for_all_gets_the_longest_and_says_that_it_did_not_hold() -> None:
    harness = Harness(1.0)
    seen = shortest_loop(harness)
    assert seen[-1].iterations == max(LADDER)
    assert not any(fed.held for fed in seen)
    assert len(seen) == len(harness.asked), "every control is kept"


@pytest.mark.parametrize(
    ("cpus", "longest"), [(1, 7 * STEP), (2, 7 * STEP), (4, 20 * STEP), (8, 20 * STEP), (64, 49 * STEP)]
)
def test_a_loop_leaves_a_short_trial_requests_to_count(
    cpus: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "available_cpus", lambda: cpus)
    loops = control.ladder(0.0018)
    assert max(loops) == longest
    assert shortest_loop(Harness(1.0), loops)[-1].iterations == longest


def test_one_disturbance_does_not_make_loops_longer() -> None:
    calm, disturbed = Harness(0.001), Harness(0.001, disturbed=1)
    assert shortest_loop(calm)[-1].iterations == shortest_loop(disturbed)[-1].iterations
    assert disturbed.asked[:2] == [7**6, 7**6]


def test_what_the_generator_cannot_do_is_not_held() -> None:
    assert FED.held
    assert not replace(FED, flags=SPOILT).held
    assert not replace(FED, share=control.HELD - 0.01).held


def test_the_busy_share_is_that_of_the_window_alone() -> None:
    """Two workers; loops from 0 to 1, 1 to 2 and 1.5 to 3 s; the window is from 1 to 2 s."""
    requests = pd.DataFrame({"end_s": [1.0, 2.0, 3.0, None], "service_s": [1.0, 1.0, 1.5, None]})
    assert busy_share(requests, 2, 1.0, 2.0) == pytest.approx(0.75)
    assert busy_share(requests.iloc[:0], 2, 1.0, 2.0) == 0


def test_auto_iterations_are_measured_once_a_run_and_last_as_long_in_every_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    step_s = {"python": 1e-7, "numpy": 4e-8}

    def timed(kernel: str, iterations: int, repeats: int) -> list[LoopCost]:
        return [LoopCost(9.0, step_s[kernel] * iterations)] * repeats

    def measured_once(_: float) -> pd.DataFrame:
        asked.append(1)
        return control.frame([replace(FED, iterations=QUICK, share=0.5), replace(FED, iterations=3 * STEP)])

    monkeypatch.setattr(control, "_auto", measured_once)
    monkeypatch.setattr("lab.study.run.measure", timed)
    run = open_run()
    assert control.iterations(run) == control.iterations(open_run(run.run_id), "sleep") == 3 * STEP
    assert len(asked) == 1
    kept = control.auto(run)
    assert kept["held"].tolist() == [False, True]
    assert control.iterations(run, "numpy") == pytest.approx(3 * STEP * 2.5, rel=1e-3)


def test_eight_workers_sleep_on_few_cpus_and_are_kept_busy() -> None:
    with control.sleepers(8, step_s=0.02) as feed:
        short, long = feed(STEP), feed(5 * STEP)
    assert psutil.Process().children(recursive=True) == []
    assert (short.workers, long.iterations) == (8, 5 * STEP)
    assert (short.loop_s, long.loop_s) == (0.02, 0.1)
    assert long.rate_rps == pytest.approx(1.2 * 8 / 0.1)
    assert 0.6 < long.share <= 1.02, "eight loops of 0.1 s at once would need eight CPUs"
    assert 0.3 < short.share <= 1.02


def test_workers_are_fed_up_to_the_first_number_that_is_not() -> None:
    assert control.most_fed(CONTROLS, 7**6) == 4, "16 were, but 8 were not"
    assert control.most_fed(CONTROLS, 7**7) == 8, "with 16, the generator could not be believed"
    assert control.most_fed(CONTROLS[CONTROLS["workers"] >= 8], 7**6) == 0


def test_what_every_worker_lacks_alike_is_no_limit_of_the_harness() -> None:
    """A slow machine: a tenth of the time goes to a worker's own work on a request."""
    fed = control.alike(CONTROLS.assign(share=[0.89, 0.88, 0.86, 0.70, 0.89, 0.80, 0.81, 0.89]))
    assert fed["held"].tolist() == [True, True, True, False, True, False, True, False]


def test_controls_are_told_with_their_doubts() -> None:
    table = control.table(CONTROLS)
    assert table["fed"].tolist() == ["yes", "yes", "no", "yes", "yes", "yes", "yes", "no"]
    assert table["share of the own limit"].iloc[0] == "95 %"
    assert table["flagged because"].map(bool).tolist() == 7 * [False] + [True]


def test_the_figure_shows_a_line_for_each_loop_and_crosses_the_flagged() -> None:
    (axes,) = control.figure(CONTROLS).axes
    assert axes.get_legend_handles_labels()[1] == ["loops of\n11.8 ms", "loops of\n82.4 ms"]
    crossed = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() == "x"]
    assert [16] in crossed


def test_the_control_measures_what_the_study_needs_and_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "available_cpus", lambda: 64)
    assert control.numbers([8, 32]) == [8, 32, 64, 128]
    monkeypatch.setattr(control, "available_cpus", lambda: 2)
    assert control.numbers([8]) == [2, 4, 8]
