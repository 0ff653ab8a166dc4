"""How a CPU quota is set: by cgroup v1, v2 or systemd; where it cannot be, one sentence says why."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import until
from helpers.quotas import groups, needs_a_group

from lab import quota
from lab.cpus import cpu_groups, quota_of
from lab.errors import LabError
from lab.quota import QuotaError, Throttling, new_quota
from lab.servers import serve

pytestmark = pytest.mark.usefixtures("no_group_left")


def _system(root: Path, line: str, files: dict[str, str]) -> Path:
    below = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": f"{line}\n", **below}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


SYSTEMS = {
    "no cgroups": ("", {}),
    "v2 that passes on no CPUs": ("0::/user/shell", {"user/shell/cgroup.subtree_control": "memory pids"}),
    "v2 beside v1, which alone has CPUs": ("0::/", {"unified/cgroup.procs": ""}),
}


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def _complaint(root: Path, cpus: float = 0.5) -> str:
    with pytest.raises(QuotaError) as error:
        new_quota(cpus, root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("no_systemd")
@pytest.mark.parametrize(("line", "files"), SYSTEMS.values(), ids=SYSTEMS)
def test_where_no_quota_can_be_set_one_sentence_says_why(
    line: str, files: dict[str, str], tmp_path: Path
) -> None:
    text = _complaint(_system(tmp_path, line, files))
    assert text.startswith("a quota of 0.5 CPUs cannot be set here (no control group passes on its CPUs")
    assert "there is no systemd-run" in text


@pytest.mark.usefixtures("no_systemd")
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "-1"}),
        ("0::/user/shell", {"user/cgroup.subtree_control": "cpu memory"}),
    ],
    ids=["v1", "v2"],
)
def test_cgroups_that_may_not_be_written_are_named(
    line: str, files: dict[str, str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _system(tmp_path, line, files)
    tried = []

    def mkdir(self: Path, *_: object, **__: object) -> None:
        tried.append(self.parent)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    text = _complaint(root)
    assert os.strerror(code).lower() in text
    assert str(tried[-1]) in text
    assert tried == [root / "sys/fs/cgroup" / next(iter(files)).rpartition("/")[0]]


def test_version_2_holds_processes_by_a_group_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that has processes cannot pass on CPUs, so it is made in the first enclosing one that does."""
    root = _system(tmp_path, "0::/user/shell", {"user/cgroup.subtree_control": "cpu memory"})
    (root / "sys/fs/cgroup/user/shell").mkdir()
    (root / "proc" / str(os.getpid())).mkdir()
    mkdir = Path.mkdir

    def as_the_kernel_does(self: Path, *arguments: Any, **options: Any) -> None:
        mkdir(self, *arguments, **options)
        for name in ("cpu.max", "cgroup.procs"):
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", as_the_kernel_does)
    limited = new_quota(0.5, root)
    (group,) = (root / "sys/fs/cgroup/user").glob("scaling-lab-*")
    assert (group / "cpu.max").read_text() == "max 100000"
    limited.limit(True)
    assert quota_of(group) == 0.5
    with subprocess.Popen([*limited.prefix, "sh", "-c", "echo $$"], stdout=subprocess.PIPE) as process:
        out, _ = process.communicate()
    assert int(out) == process.pid, "it is the same process"
    assert int((group / "cgroup.procs").read_text()) == process.pid, "written before it ran"
    for file in group.iterdir():
        file.unlink()
    limited.close()
    assert not group.exists()


@needs_a_group
def test_a_quota_above_that_of_an_enclosing_group_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    outer = new_quota(0.1)
    try:
        outer.limit(True)
        (made,) = (group for group in groups() if f"-{os.getpid()}-" in group.name)
        if (made / "cpu.max").exists():
            pytest.skip("version 2 accepts it: the enclosing quota holds all the same")
        (tmp_path / "sys/fs").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup").symlink_to(made.parent.parent)
        inside = made.relative_to(made.parent)
        _system(tmp_path, f"1:{made.parent.name}:/{inside}", {})
        assert "cannot write" in _complaint(tmp_path)
        assert list(made.glob("scaling-lab-*")) == []
    finally:
        outer.close()


V1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\nnr_bursts 0"
V2 = "usage_usec 7\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\n"


@pytest.mark.parametrize("stat", [V1, V2])
def test_both_versions_count_alike(stat: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text(stat)
    found = Throttling.of(tmp_path)
    assert found == Throttling(periods=9, throttled=4, throttled_s=1.5)
    assert found.since(Throttling(2, 1, 0.5)) == Throttling(7, 3, 1.0)


@pytest.mark.parametrize("stat", ["", "usage_usec 7", "nr_periods x\nnr_throttled 4\nthrottled_time 1"])
def test_a_group_that_counts_nothing_is_one_clear_line(stat: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text(stat)
    with pytest.raises(LabError, match="does not say how often"):
        Throttling.of(tmp_path)


SYSTEMD = """#!{python}
import os, sys
arguments = sys.argv[1:]
command = arguments[arguments.index("--") + 1:]
group = {group!r}
if group:
    open(group + "/cgroup.procs", "w").write(str(os.getpid()))
    percent = next(a for a in arguments if a.startswith("CPUQuota=")).split("=")[1].rstrip("%")
    open(group + "/cpu.cfs_quota_us", "w").write(str(int(1000 * float(percent))))
elif {fails!r}:
    sys.exit({fails!r})
os.execvp(command[0], command)
"""
"""What systemd-run does with a scope: it moves itself there, and becomes the command."""


@pytest.fixture
def no_group_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(root: Path) -> Path:
        raise LabError("/sys/fs/cgroup: permission denied")

    monkeypatch.setattr(quota, "_new_group", refused)


def _fake_systemd(folder: Path, group: Path | str = "", fails: str = "") -> str:
    program = folder / "systemd-run"
    program.write_text(SYSTEMD.format(python=sys.executable, group=str(group), fails=fails))
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_a_group
@pytest.mark.skipif(not any(Path(g, "cpu.cfs_quota_us").exists() for g in cpu_groups()), reason="needs v1")
@pytest.mark.usefixtures("no_group_may_be_made")
def test_where_no_group_may_be_made_a_server_runs_in_a_scope_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = next(iter(cpu_groups())) / f"test-{os.getpid()}.scope"
    scope.mkdir()
    try:
        monkeypatch.setenv("PATH", _fake_systemd(tmp_path, scope))
        with serve("single", iterations=1000, quota_cpus=0.5) as server:
            assert next(iter(cpu_groups(pid=server.pid))) == scope
            assert server.throttling() is not None
    finally:
        until(lambda: not (scope / "cgroup.procs").read_text())
        scope.rmdir()


@pytest.mark.usefixtures("no_group_may_be_made")
@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("Failed to connect to bus: No medium found", "systemd-run failed: Failed to connect to bus"),
        ("", "systemd-run sets no quota"),
    ],
)
def test_a_systemd_that_does_not_work_is_named(
    fails: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", _fake_systemd(tmp_path, fails=fails))
    text = _complaint(Path("/"))
    assert reason in text
    assert "permission denied" in text
