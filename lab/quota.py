"""A CPU quota of our own for some processes: set, watched, and always removed.

The quota is that of a control group (cgroup v1 or v2) which we make inside one of our own groups, if we may;
else of a scope that systemd makes for us. A guardian removes our group when the starter ends in any way, even
by `kill -9`; what is left if that is killed too, the next start removes.
"""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.channel import Channel
from lab.cpus import cpu_groups, quota_of
from lab.errors import LabError
from lab.files import read_small
from lab.units import counted

LEAST_CPUS = 0.01
"""The kernel takes no smaller quota, at this period: 1 ms of CPU time."""

_PERIOD_US = 100_000
"""The kernel's own default, which container runtimes use, too."""

_PREFIX = "scaling-lab-"
_PATIENCE_S = 10.0

_ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
"""Goes into a group, and only then becomes the command: all that it starts is held, too."""

_GUARD = """
read -r _
tries=0
until rmdir "$1" 2>/dev/null || [ ! -d "$1" ] || [ $tries -ge 400 ]; do
    tries=$((tries + 1))
    sleep 0.02
done
"""
"""Waits until its starter closes the channel or is gone, and then until the group is empty."""


@dataclass(frozen=True)
class Throttling:
    """What a quota has done so far.

    periods: in how many periods of 100 ms the group wanted to run; throttled: in how many it was stopped,
    because its quota was used up; throttled_s: for how long, summed over the CPUs that it ran on.
    """

    periods: int
    throttled: int
    throttled_s: float

    def since(self, earlier: "Throttling") -> "Throttling":
        """Return what it has done since an earlier moment."""
        return Throttling(
            self.periods - earlier.periods,
            self.throttled - earlier.throttled,
            self.throttled_s - earlier.throttled_s,
        )

    @staticmethod
    def of(group: Path) -> "Throttling":
        """Read it from the group's `cpu.stat`. Raises LabError if the group does not count it."""
        stat = dict(line.split(maxsplit=1) for line in read_small(group / "cpu.stat").splitlines())
        try:
            per_s, spent = (1e6, "throttled_usec") if "throttled_usec" in stat else (1e9, "throttled_time")
            return Throttling(int(stat["nr_periods"]), int(stat["nr_throttled"]), int(stat[spent]) / per_s)
        except (KeyError, ValueError):
            raise LabError(f"{group}/cpu.stat does not say how often the quota throttled") from None


class QuotaError(LabError):
    """No quota can be set on this machine."""


class Quota(Protocol):
    """A quota that can be set here, and the processes that it holds."""

    prefix: tuple[str, ...]
    """What to start a command with: it is held, with all that it starts, from its first instruction."""

    def limit(self, limited: bool) -> None:
        """Apply the quota from now on, or lift it."""

    def throttling(self, pid: int) -> Throttling:
        """Return what the quota has done so far; `pid` is that of the command started with `prefix`."""

    def close(self) -> None:
        """Remove it. All the processes that it holds must have ended. Raises LabError if it stays."""


def new_quota(cpus: float, root: Path = Path("/")) -> Quota:
    """Return a quota of so many CPUs, not yet applied. `root` is where `proc` and `sys` are.

    Raises QuotaError, in one sentence that says why, if none can be set here.
    """
    reasons = []
    for make in (lambda: _Group(cpus, root), lambda: _Scope(cpus)):
        try:
            return make()
        except LabError as error:
            reasons.append(str(error))
    raise QuotaError(
        f"a quota of {counted(cpus, 'CPU')} cannot be set here ({'; '.join(reasons)}):"
        " run as root where cgroups are writable, or in a systemd session"
    )


class _Group:
    """A control group of our own; the guardian removes it once `_lifeline` is closed."""

    def __init__(self, cpus: float, root: Path) -> None:
        self._cpus = cpus
        self._folder = _new_group(root)
        self.prefix: tuple[str, ...] = ("sh", "-c", _ENTER, "sh", str(self._folder))
        try:
            self._lifeline, self._guardian = _guard(self._folder)
        except BaseException:
            _remove(self._folder)
            raise
        try:
            self.limit(True)  # now, so that a quota that is refused is known before anything starts
            self.limit(False)
        except BaseException:
            self.close()
            raise

    def limit(self, limited: bool) -> None:
        quota_us = round(self._cpus * _PERIOD_US)
        if (newer := self._folder / "cpu.max").exists():
            _write(newer, f"{quota_us if limited else 'max'} {_PERIOD_US}")
        else:
            _write(self._folder / "cpu.cfs_period_us", str(_PERIOD_US))
            _write(self._folder / "cpu.cfs_quota_us", str(quota_us if limited else -1))

    def throttling(self, pid: int) -> Throttling:
        return Throttling.of(self._folder)

    def close(self) -> None:
        self._lifeline.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.wait(_PATIENCE_S)
        _remove(self._folder)
        if self._folder.is_dir():
            raise LabError(f"the control group {self._folder} is not empty: end its processes, then rmdir it")


def _new_group(root: Path) -> Path:
    """Make a control group whose CPUs can be limited, as deep in our own groups as possible."""
    reasons = []
    for parent in cpu_groups(root):
        if not _has_cpu(parent):
            continue
        _remove_stale(parent, root)
        group = parent / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        try:
            group.mkdir()
            return group
        except OSError as error:
            reasons.append(f"{parent}: {_said(error)}")
    raise LabError(reasons[-1] if reasons else "no control group passes on its CPUs")


def _has_cpu(parent: Path) -> bool:
    """Say whether the CPUs of groups in this one can be limited: always in version 1, if passed on in 2."""
    return (parent / "cpu.cfs_quota_us").exists() or (
        "cpu" in read_small(parent / "cgroup.subtree_control").split()
    )


def _remove_stale(parent: Path, root: Path) -> None:
    """Remove groups whose starter and guardian were both killed; one that is not empty stays."""
    for group in parent.glob(f"{_PREFIX}*-*"):
        pid = group.name.removeprefix(_PREFIX).partition("-")[0]
        if not (root / "proc" / pid).exists():
            _remove(group)


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):
        group.rmdir()


def _guard(group: Path) -> "tuple[Channel, subprocess.Popen[bytes]]":
    """Return the starter's end of a channel, and the guardian that removes the group once that is closed."""
    ours, theirs = Channel.pair()
    try:
        return ours, subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", str(group)],  # noqa: S607 - where it is differs by system
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise LabError(f"cannot start a shell to guard {group}: {_said(error)}") from error
    finally:
        theirs.close()


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise LabError(f"cannot write {text} to {file}: {_said(error)}") from error


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class _Scope:
    """A scope of systemd's around one command, which it limits from the start and removes at its end."""

    def __init__(self, cpus: float) -> None:
        user = () if os.geteuid() == 0 else ("--user",)
        percent = f"CPUQuota={100 * cpus:g}%"
        self.prefix: tuple[str, ...] = (
            "systemd-run",
            *user,
            "--scope",
            "--quiet",
            "--collect",
            "-p",
            percent,
            "--",
        )
        if (found := self._probe()) is None or abs(found - cpus) > LEAST_CPUS:
            raise LabError("systemd-run sets no quota")

    def _probe(self) -> float | None:
        """Return the quota that a command really has in such a scope."""
        code = "from lab import cpus; print(cpus.quota_cpus() or 0)"
        try:
            done = subprocess.run(
                [*self.prefix, sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S, check=True,
            )  # fmt: skip
            return float(done.stdout)
        except FileNotFoundError:
            raise LabError("there is no systemd-run") from None
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise LabError(f"systemd-run failed: {last}") from None
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise LabError(f"systemd-run failed: {error}") from None

    def limit(self, limited: bool) -> None:
        pass

    def throttling(self, pid: int) -> Throttling:
        for group in cpu_groups(pid=pid):  # of the scope: the command has the pid of systemd-run
            if quota_of(group) is not None:
                return Throttling.of(group)
        raise LabError("the scope has no quota any more: has its process ended?")

    def close(self) -> None:
        pass
