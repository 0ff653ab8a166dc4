"""What holds for every test: it leaves no process behind, and where CI runs it, it is not skipped."""

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from hypothesis import settings

pytest_plugins = ["helpers.browser"]

_MARK = "SCALING_LAB_TEST_SESSION"
_PATIENCE_S, _LOOK_S = 2.0, 0.02

os.environ["SSL_CERT_FILE"] = os.devnull  # aiohttp reads it when imported: a fifth of a worker's start
os.environ[_MARK] = uuid4().hex  # every process started from here carries it, whoever adopts it later


def _is_ours(pid: int) -> bool:
    """Say whether these tests started the process, and it still lives or was not waited for."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return process.ppid() == os.getpid()  # not waited for
        return process.environ().get(_MARK) == os.environ[_MARK]
    except psutil.Error:
        return False


settings.load_profile("ci")  # neither chance nor how busy the machine is may decide


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Do not wait for the disk: a test's files have but to survive kills, and thousands are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a folder of its own for runs, figures and reports."""
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process behind for longer than the lifeline promises."""
    before = set(psutil.pids())
    yield
    for _ in range(round(_PATIENCE_S / _LOOK_S)):  # a busy machine delays these looks, too
        if not (left := set(filter(_is_ours, set(psutil.pids()) - before))):
            return
        time.sleep(_LOOK_S)
    pytest.fail(f"processes left behind: {left}")


@pytest.fixture
def no_group_left() -> Iterator[None]:
    """Fail a test that leaves a control group of ours behind; another's that runs meanwhile has a starter."""
    from helpers.quotas import groups  # tries a quota when it is imported

    before = groups()
    yield
    mine = f"scaling-lab-{os.getpid()}-"
    assert [group for group in groups() - before if group.name.startswith(mine)] == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail a test of servers after which a file, socket or process is found that nobody closed."""
    for item in items:
        if item.path.parent.name == "servers":
            item.add_marker(pytest.mark.filterwarnings("error::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `CI=true`, a tool that is missing is a failure: nothing is skipped silently."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
    return report
