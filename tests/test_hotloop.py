"""The work itself: the article's sum from every kernel, and figures of what a run costs.

The loop as numba compiles it: kept for the next process where it can be, and without the GIL.
"""

import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.hotloop import ITERATIONS, REFERENCE_SUM, TOLERANCE, kernel, measure, run

FEW = 20_000


def _terms(iterations: int) -> list[float]:
    return [math.atan(i) * math.tan(i) for i in range(iterations, -1, -1)]


def test_the_article_counts_down_from_seven_to_the_seventh() -> None:
    assert ITERATIONS == 823_543


@pytest.mark.parametrize("name", TOLERANCE)
def test_the_articles_sum(name: str) -> None:
    assert kernel(name)(ITERATIONS) == pytest.approx(REFERENCE_SUM, rel=TOLERANCE[name], abs=0)


def test_plain_python_gives_every_digit() -> None:
    assert kernel("python")(ITERATIONS) == REFERENCE_SUM


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize("iterations", [0, 1, 2, 1000, FEW])
def test_shorter_loops_agree_with_an_exact_sum_of_the_same_terms(name: str, iterations: int) -> None:
    terms = _terms(iterations)
    slack = TOLERANCE[name] * math.fsum(map(abs, terms)) + iterations * 1e-16
    assert kernel(name)(iterations) == pytest.approx(math.fsum(terms), rel=0, abs=slack)


@pytest.mark.parametrize("name", TOLERANCE)
def test_the_loop_counts_down_to_nothing_from_below_nothing(name: str) -> None:
    assert kernel(name)(-1) == 0


@pytest.mark.parametrize("name", TOLERANCE)
def test_the_sum_is_a_plain_float_that_prints_as_the_article_does(name: str) -> None:
    assert type(kernel(name)(10)) is float


@pytest.mark.parametrize("name", TOLERANCE)
def test_a_measurement_has_a_figure_for_each_repeat(name: str) -> None:
    costs = measure(name, FEW, repeats=3)
    assert len(costs) == 3
    assert all(cost.wall_s > 0 and cost.cpu_s >= 0 for cost in costs)
    assert sum(cost.cpu_s for cost in costs) > 0


def test_cpu_time_is_that_of_the_loops_own_thread() -> None:
    """The loop waits for another thread of its process, which is busy meanwhile."""

    burnt_s = 0.05

    def burn() -> None:
        while time.thread_time() < burnt_s:
            pass

    def wait_for_another(_: int) -> float:
        other = threading.Thread(target=burn)
        other.start()
        other.join()
        return 0.0

    found = run(wait_for_another, FEW)
    assert found.cpu_s < 0.5 * burnt_s < found.duration_s


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match="unknown kernel 'fortran': choose one of python, numpy, numba, sleep"
    ):
        kernel("fortran")
    with pytest.raises(UsageError, match="unknown kernel"):
        measure("")


def test_sleeping_takes_time_but_no_cpu_and_computes_nothing() -> None:
    costs = measure("sleep", 200_000, repeats=3)
    assert all(cost.wall_s >= 0.02 for cost in costs)
    assert all(cost.cpu_s < 0.2 * cost.wall_s for cost in costs)
    assert kernel("sleep")(1) == kernel("sleep")(-1) == 0.0


SUM = pytest.approx(REFERENCE_SUM, rel=TOLERANCE["numba"], abs=0)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_what_numba_compiled_the_next_process_need_not_unless_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = f"""
from lab.hotloop import kernel
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    total = kernel("numba")({ITERATIONS})
print(total, len(recorder.buffer) > 0)
"""
    total = repr(kernel("numba")(ITERATIONS))
    assert _python(code).split() == [total, "True"]
    assert _python(code).split() == [total, "False"]
    for damaged in ("*.nbi", "*.nbc"):
        (kept,) = tmp_path.rglob(damaged)
        kept.write_bytes(kept.read_bytes()[:100])
        assert _python(code).split() == [total, "True"]


def test_numba_works_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "kept"))
    code = f"from lab.hotloop import kernel; print(kernel('numba')({ITERATIONS}))"
    assert float(_python(code)) == SUM


def test_other_threads_go_on_while_numba_computes() -> None:
    loop = kernel("numba")
    started, ended = threading.Event(), threading.Event()
    loop_s: list[float] = []

    def compute() -> None:
        started.set()
        before_s = time.thread_time()
        loop(20 * ITERATIONS)
        loop_s.append(time.thread_time() - before_s)
        ended.set()

    other = threading.Thread(target=compute)
    other.start()
    started.wait()
    before_s = time.thread_time()
    while not ended.is_set():
        pass
    ours_s = time.thread_time() - before_s
    other.join()
    assert ours_s > 0.1 * loop_s[0]  # with the GIL held it would be a few milliseconds


def test_a_process_may_end_while_a_thread_of_it_is_in_numbas_loop() -> None:
    said = _python(f"""
import threading
from lab.hotloop import kernel
loop, started = kernel("numba"), threading.Event()
threading.Thread(target=lambda: (started.set(), loop(100 * {ITERATIONS})), daemon=True).start()
started.wait()
print("in the loop")
""")
    assert said == "in the loop\n"
