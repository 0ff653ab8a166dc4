"""How many CPUs there are, as each API says, and how many loops really run at once."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from lab import cpus
from lab.errors import LabError, one_line
from lab.programs import find

_PATIENCE_S = 10.0
_MOST_LOOPS = 1024
_NODE = "const os = require('os'); console.log(os.availableParallelism?.() ?? os.cpus().length)"
_LOOP = """
import sys, time
print(flush=True)
spin_s = float(sys.stdin.readline())
end_s, began_s = time.monotonic() + spin_s, time.process_time()
while time.monotonic() < end_s:
    pass
print(time.process_time() - began_s)
"""
"""Says that it is ready, waits to be told for how long, loops, and says how much CPU time it got."""


@dataclass(frozen=True)
class Said:
    """What one API says: a number of CPUs, a fraction for a quota; or None, and `because` says why."""

    api: str
    cpus: float | None
    because: str = ""


def all_said() -> list[Said]:
    """Ask every API that programs take their number of workers or threads from."""
    quota = cpus.quota_cpus()
    return [
        Said("Python os.cpu_count()", cpus.host_cpus()),
        _process_cpu_count(),
        Said("affinity", cpus.affinity_cpus()),
        Said("cgroup quota", quota, "" if quota else "no quota"),
        _asked("loky.cpu_count()", _loky),
        _asked("Node os.availableParallelism()", lambda: _printed("node", "-e", _NODE)),
        _asked("nproc", lambda: _printed("nproc")),
    ]


def _process_cpu_count() -> Said:
    count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    name = "Python os.process_cpu_count()"
    return Said(name, count()) if count else Said(name, None, "from Python 3.13 on")


def _asked(api: str, ask: Callable[[], float | None]) -> Said:
    """Ask an API that may not be here, or fail."""
    try:
        found = ask()
    except Exception as error:  # whatever it is: the doctor goes on
        return Said(api, None, f"failed: {one_line(error)[:100]}")
    return Said(api, found, "" if found else "not installed")


def _loky() -> int | None:
    if importlib.util.find_spec("loky") is None:
        return None
    return int(importlib.import_module("loky").cpu_count())


def _printed(program: str, *arguments: str) -> int | None:
    path = find(program)
    if path is None:
        return None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
    return int(done.stdout)


def run_at_once(loops: int, for_s: float = 1.0) -> float:
    """Return how many CPUs so many endless loops get together: their CPU time over `for_s`.

    Each is a process of its own. What others use of the CPUs, and a quota, are in the number. Raises LabError
    if one ends early.
    """
    command = [sys.executable, "-I", "-S", "-c", _LOOP]
    with ExitStack() as running:
        started = [
            running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(min(loops, _MOST_LOOPS))
        ]
        for one in started:
            _next_line(one)
        for one in started:
            print(for_s, file=one.stdin, flush=True)
        return sum(float(_next_line(one)) for one in started) / for_s


def _next_line(loop: "subprocess.Popen[str]") -> str:
    line = loop.stdout.readline() if loop.stdout else ""
    if not line:
        raise LabError("a loop ended early while CPUs were counted: is there memory for a process per CPU?")
    return line
