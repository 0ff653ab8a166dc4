"""The loop as numba compiles it: kept for the next process where it can be, and without the GIL."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab.hotloop import ITERATIONS, REFERENCE_SUM, TOLERANCE, kernel

SUM = pytest.approx(REFERENCE_SUM, rel=TOLERANCE["numba"], abs=0)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_next_process_need_not_compile_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = f"""
from lab.hotloop import kernel
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    total = kernel("numba")({ITERATIONS})
print(total, len(recorder.buffer) > 0)
"""
    assert _python(code).split() == [repr(kernel("numba")(ITERATIONS)), "True"]
    assert _python(code).split()[1] == "False"


def test_it_works_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "kept"))
    code = f"from lab.hotloop import kernel; print(kernel('numba')({ITERATIONS}))"
    assert float(_python(code)) == SUM


@pytest.mark.parametrize("damaged", ["*.nbi", "*.nbc"])
def test_what_was_kept_and_is_damaged_is_compiled_again(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = f"from lab.hotloop import kernel; print(kernel('numba')({ITERATIONS}))"
    _python(code)
    (kept,) = tmp_path.rglob(damaged)
    kept.write_bytes(kept.read_bytes()[:100])
    assert float(_python(code)) == SUM


def test_other_threads_go_on_meanwhile() -> None:
    loop = kernel("numba")
    started, ended = threading.Event(), threading.Event()
    loop_s: list[float] = []

    def run() -> None:
        started.set()
        before_s = time.thread_time()
        loop(20 * ITERATIONS)
        loop_s.append(time.thread_time() - before_s)
        ended.set()

    other = threading.Thread(target=run)
    other.start()
    started.wait()
    before_s = time.thread_time()
    while not ended.is_set():
        pass
    ours_s = time.thread_time() - before_s
    other.join()
    assert ours_s > 0.1 * loop_s[0]  # with the GIL held it would be a few milliseconds


def test_a_process_may_end_while_a_thread_of_it_is_in_the_loop() -> None:
    said = _python(f"""
import threading
from lab.hotloop import kernel
loop, started = kernel("numba"), threading.Event()
threading.Thread(target=lambda: (started.set(), loop(100 * {ITERATIONS})), daemon=True).start()
started.wait()
print("in the loop")
""")
    assert said == "in the loop\n"
