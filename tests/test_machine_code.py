"""Compiled code that is kept: the next process runs it without numba, and never code damaged or foreign."""

import json
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import machine_code
from lab.hotloop import ITERATIONS, REFERENCE_SUM, TOLERANCE, kernel

SUM = pytest.approx(REFERENCE_SUM, rel=TOLERANCE["numba"], abs=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code is kept in this test, and nowhere else."""
    chosen = tmp_path / "kept"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(chosen))
    return chosen


def _only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_next_process_gets_the_same_sum_without_numba(folder: Path) -> None:
    here = kernel("numba")(ITERATIONS)
    there, has_numba = json.loads(
        _python(f"""
import json, sys
from lab.hotloop import kernel
print(json.dumps([kernel("numba")({ITERATIONS}), "numba" in sys.modules]))
""")
    )
    assert not has_numba
    assert there == here == SUM


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _binary(file: Path) -> None:
    file.write_bytes(b"\xff" + file.read_bytes()[1:])


def _other_code(file: Path) -> None:
    """It would run, and give another sum."""
    file.write_text(file.read_text().replace("fadd", "fsub"))


def _of_another_function(file: Path) -> None:
    name = file.name
    machine_code.load(_half)
    next(file.parent.glob("_half-*")).replace(file.parent / name)


def _half(number: int) -> float:
    return number / 2.0


@pytest.mark.parametrize("damage", [_empty, _truncated, _binary, _other_code, _of_another_function])
def test_a_damaged_file_is_not_run_but_replaced(folder: Path, damage: Callable[[Path], None]) -> None:
    kernel("numba")
    file = _only_file(folder)
    damage(file)
    damaged = file.read_bytes()
    assert kernel("numba")(ITERATIONS) == SUM
    assert _only_file(folder) == file
    assert file.read_bytes() != damaged


def test_each_function_has_code_of_its_own(folder: Path) -> None:
    def half(number: int) -> float:
        return number / 4.0

    half.__name__ = _half.__name__
    assert machine_code.load(_half)(6) == 3
    assert machine_code.load(half)(6) == 1.5
    assert len(list(folder.iterdir())) == 2


def test_it_works_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "kept"))
    assert kernel("numba")(ITERATIONS) == SUM


def test_beside_the_module_or_else_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copy(machine_code.__file__, tmp_path / "copied.py")
    (tmp_path / "half.py").write_text("def half(number: int) -> float:\n    return number / 2.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import copied, half; print(copied.load(half.half)(3))"
    (tmp_path / "__pycache__").touch()  # a file: no folder can be there
    assert _python(code) == "1.5\n"
    in_cache = _only_file(tmp_path / "cache" / "scaling-lab")
    in_cache.unlink()
    (tmp_path / "__pycache__").unlink()
    assert _python(code) == "1.5\n"
    assert (tmp_path / "__pycache__" / in_cache.name).exists()
    assert not in_cache.exists()


def test_code_that_needs_numba_when_it_runs_is_not_kept(folder: Path) -> None:
    def gamma(number: int) -> float:
        return math.gamma(number)

    def sum_of_list(number: int) -> float:
        return float(sum([i for i in range(number)]))  # noqa: C416 - a list asks numba for memory

    assert machine_code.load(gamma)(5) == pytest.approx(24)
    assert machine_code.load(sum_of_list)(5) == 10
    assert not folder.exists()


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
    _python(f"""
import threading
from lab.hotloop import kernel
loop, started = kernel("numba"), threading.Event()
threading.Thread(target=lambda: (started.set(), loop(100 * {ITERATIONS})), daemon=True).start()
started.wait()
""")


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError, match=f"{2**63} does not fit"):
        kernel("numba")(2**63)
