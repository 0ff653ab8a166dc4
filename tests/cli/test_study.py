"""`lab study` and papermill as a user runs them: to the end, to a failure, and to a kill in the middle."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
from helpers.clients import until
from helpers.html_page import Page
from helpers.lab_command import are_gone, finish, papermill, processes, progress, start, study

from lab.cli import main
from lab.cli import study as command
from lab.cli.execute import execute
from lab.experiments import catalog
from lab.experiments.instrument.stalls import OPEN
from lab.study.manifest import Manifest
from lab.study.store import read_table

GONE_WITHIN_S = 10.0
"""The promise is 2 s on an idle machine; each trial that is killed would last far longer than this."""

pytestmark = pytest.mark.timeout(400)


class Ended(NamedTuple):
    """A study that ended: its home and its run, what it printed, and its status."""

    home: Path
    run: Path
    done: subprocess.CompletedProcess[str]

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate_json((self.run / "manifest.json").read_bytes())

    @property
    def report(self) -> Path:
        return self.home / "reports" / self.run.name / "index.html"


def _studied(home: Path, *args: str) -> Ended:
    done = finish(home, *study(*args))
    (run,) = (home / "data").iterdir()
    return Ended(home, run, done)


def _checksums(run: Path, pattern: str = "*/*.parquet") -> dict[str, str]:
    files = sorted(run.glob(pattern))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _planned(notebook: str, varied: str) -> int:
    """Return how many trials the smoke profile plans for a server: the values that are varied, per block."""
    settings = catalog.profile_parameters("smoke", notebook)
    return len(settings[varied]) * int(settings["blocks"])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Run the whole smoke profile once, for every test that reads what it leaves."""
    return _studied(tmp_path_factory.mktemp("smoke"))


@pytest.fixture
def copy(smoke: Ended, tmp_path: Path) -> Ended:
    """Give the run to a test that changes it."""
    shutil.copytree(smoke.home, tmp_path, dirs_exist_ok=True)
    return smoke._replace(home=tmp_path, run=tmp_path / "data" / smoke.run.name)


class TestToTheEnd:
    """The whole study, from nothing to a report."""

    def test_it_prints_the_reports_path_last_and_nothing_else_on_stdout(self, smoke: Ended) -> None:
        assert smoke.done.returncode == 0, smoke.done.stderr
        assert smoke.done.stdout == f"{smoke.report}\n"
        assert smoke.report.is_file()

    def test_it_tells_how_far_it_is(self, smoke: Ended) -> None:
        lines = smoke.done.stderr.splitlines()
        assert lines[0].startswith(f"new run {smoke.run.name}: profile smoke, ")
        for name in catalog.notebooks():
            assert any(line.startswith(f"{name}: done, after ") for line in lines), name
        assert any("trial 2 of 2, about " in line and " s left of these (" in line for line in lines)

    def test_every_notebook_is_executed_without_an_error(self, smoke: Ended) -> None:
        executed = sorted(path.stem for path in (smoke.run / "notebooks").glob("*.ipynb"))
        assert executed == sorted(catalog.notebooks())
        for name in executed:
            notebook = nbformat.read(smoke.run / "notebooks" / f"{name}.ipynb", as_version=4)
            cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
            assert all(cell.execution_count for cell in cells)
            streams = [out for cell in cells for out in cell.outputs if out.get("name") == "stderr"]
            assert streams == [], f"{name} warns: {streams}"

    def test_every_planned_trial_is_on_disk_with_its_requests(self, smoke: Ended) -> None:
        trials = {path.stem for path in (smoke.run / "trials").glob("*.parquet")}
        assert trials == {path.stem for path in (smoke.run / "requests").glob("*.parquet")}
        experiments = [name.split(".")[0] for name in trials]
        assert experiments.count("single-vs-cluster") == 2
        assert experiments.count("rate-sweep") == 2 * _planned("03-rate-sweep", "loads")
        assert experiments.count("worker-scaling") == _planned("04-worker-scaling", "workers")

    def test_every_planned_request_is_a_row(self, smoke: Ended) -> None:
        for path in (smoke.run / "trials").glob("*.parquet"):
            (trial,) = read_table(path).to_pylist()
            requests = read_table(smoke.run / "requests" / path.name)
            assert requests.num_rows == trial["planned"] > 0

    def test_the_instrument_shows_the_known_sawtooth_of_a_stall_at_every_rate(self, smoke: Ended) -> None:
        asked = catalog.profile_parameters("smoke", "08-instrument")
        (path,) = (smoke.run / "tables").glob("stalls-*.parquet")
        stalls = read_table(path).to_pandas()
        assert sorted(stalls["rate"].unique()) == asked["stall_rates"]
        for rate, mine in stalls[stalls["loop"] == OPEN].groupby("rate"):
            over_s = round(rate * asked["stall_duration_s"] / 3) / rate + asked["stall_s"]
            due_s = np.arange(rate * asked["stall_duration_s"]) / rate
            known_s = np.where(due_s >= over_s - asked["stall_s"], np.maximum(over_s - due_s, 0), 0)
            for percent in (50, 90, 99, 100):
                least_s = np.percentile(known_s, percent)
                seen_s = np.percentile(mine["latency_s"], percent)
                assert least_s - 1e-9 <= seen_s <= least_s + asked["stall_s"] / 2
            assert mine["service_s"].max() >= asked["stall_s"], "the server knows of one slow request"
            assert np.percentile(mine["service_s"], 90) < asked["stall_s"] / 2 < np.percentile(known_s, 90)

    def test_the_manifest_is_complete_and_its_checksums_are_right(self, smoke: Ended) -> None:
        manifest = smoke.manifest
        assert (manifest.state, manifest.profile) == ("complete", "smoke")
        assert list(manifest.notebooks) == catalog.notebooks()
        assert manifest.finished_at is not None
        assert manifest.finished_at > manifest.started_at
        assert manifest.files == _checksums(smoke.run)

    def test_figures_are_exported_as_svg_and_png(self, smoke: Ended) -> None:
        names = {path.name for path in (smoke.home / "figures" / smoke.run.name).iterdir()}
        for figure in ("hot-loop", "single-vs-cluster", "rate-sweep", "worker-scaling"):
            assert {f"{figure}.svg", f"{figure}.png"} <= names

    def test_the_report_needs_no_network_and_answers_first(self, smoke: Ended) -> None:
        page = Page(smoke.report.read_text())
        assert page.fetched() == []
        assert not any(script.get("src") for script in page.find("script"))
        assert [article["id"] for article in page.find("article")] == sorted(catalog.notebooks())
        assert "Answer." in page.text("00-summary")
        assert "was not measured" not in page.text("00-summary")
        assert "The answer appears here" not in page.text()
        assert "This notebook failed" not in page.text()

    def test_every_figure_of_the_report_has_alt_text_and_a_caption(self, smoke: Ended) -> None:
        page = Page(smoke.report.read_text())
        images = page.find("img")
        assert len(images) >= 7
        assert all(len(image.get("alt", "")) > 40 for image in images)
        assert "No description has been provided" not in page.markup
        assert len(page.find("figcaption")) == len(page.find("figure"))

    def test_nothing_of_it_is_left_running(self, smoke: Ended) -> None:
        assert processes(smoke.home) == []

    def test_again_it_measures_nothing_and_ends_as_it_was(self, copy: Ended) -> None:
        before = _checksums(copy.run)
        again = _studied(copy.home, "--run", copy.run.name, "--only", "04")
        assert again.done.returncode == 0, again.done.stderr
        assert again.done.stdout == f"{copy.report}\n"
        assert "trial 1 of" not in again.done.stderr
        assert _checksums(copy.run) == before
        assert again.manifest.state == "complete"
        assert again.manifest.files == before


class TestToAFailure:
    """What a failing notebook leaves: the others, the data, a report that says so, and status 1."""

    def test_damaged_data_fails_the_notebook_that_reads_it(self, copy: Ended) -> None:
        damaged = next((copy.run / "trials").glob("rate-sweep.*.parquet"))
        damaged.write_bytes(damaged.read_bytes()[:-100])
        before = _checksums(copy.run)
        ended = _studied(copy.home, "--run", copy.run.name, "--only", "00")
        assert ended.done.returncode == 1
        assert ended.done.stdout == f"{copy.report}\n"
        lines = ended.done.stderr.splitlines()
        (failed,) = [line for line in lines if line.startswith("00-summary: failed: ")]
        assert f"{damaged} is damaged" in failed
        assert lines[-1] == "failed: 00-summary; the rest is in the report"
        page = Page(copy.report.read_text())
        assert "This notebook failed. LabError" in page.text("00-summary")
        assert "This notebook failed" not in page.text("01-hot-loop")
        assert _checksums(copy.run) == before

    def test_a_killed_kernel_takes_its_servers_along_and_the_next_notebook_runs(self, tmp_path: Path) -> None:
        with start(tmp_path, *study("--only", "02", "--only", "00")) as process:
            until(lambda: processes(tmp_path, of="lab.load.generator"))
            (kernel,) = processes(tmp_path, of="ipykernel_launcher")
            its_own = {one for one in processes(tmp_path) if one.pid not in (process.pid, kernel.pid)}
            kernel.kill()
            until(lambda: not its_own.intersection(processes(tmp_path)), GONE_WITHIN_S)
            out, err = process.communicate()
        assert process.returncode == 1
        assert "02-single-vs-cluster: failed: KernelDied" in err
        assert "00-summary: done" in err
        page = Page(Path(out.strip()).read_text())
        assert "This notebook failed. KernelDied" in page.text("02-single-vs-cluster")
        assert "This run has not measured enough to tell" in page.text("00-summary")
        (run,) = (tmp_path / "data").iterdir()
        assert json.loads((run / "manifest.json").read_text())["state"] == "unfinished"


_ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

_STOPPED = ["stopped; run the same command again to resume", "lab: interrupted"]


class TestToAKill:
    """A study that is killed in the middle of a measurement, and the same command again."""

    def test_killed_it_leaves_no_process_and_resumes_where_it_was(self, tmp_path: Path) -> None:
        command = study("--only", "05", "-p", "05.pools=[]", "-p", "05.kept=[]")
        with start(tmp_path, *command) as process:
            until(lambda: progress(tmp_path).get("done") == 1)
            process.kill()
            assert are_gone(tmp_path, GONE_WITHIN_S)
        (run,) = (tmp_path / "data").iterdir()
        kept = _checksums(run, "trials/*")
        assert len(kept) == 1

        again = Ended(tmp_path, run, finish(tmp_path, *command))
        assert again.done.returncode == 0, again.done.stderr
        assert list(run.parent.iterdir()) == [run]
        assert f"resuming {run.name}: " in again.done.stderr
        assert "trial 2 of 2" in again.done.stderr
        assert "trial 1 of 2" not in again.done.stderr
        trials = _checksums(run, "trials/*")
        assert len(trials) == _planned("05-dispatch", "dispatches")
        assert trials | kept == trials, "what was finished is as it was"
        assert again.manifest.state == "complete"

    def test_interrupted_it_says_how_to_go_on_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        temporary = tmp_path / "t"
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
        try:
            process = start(tmp_path, *study("--only", "02"))
        finally:
            signal.signal(signal.SIGINT, ignored)
        with process:
            until(lambda: processes(tmp_path, of="lab.load.generator"))
            for _ in range(3):  # as who is impatient, or a system that goes down
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.05)
            _, err = process.communicate()
        assert process.returncode == 130
        assert [line for line in err.splitlines() if line][-2:] == _STOPPED
        assert "Traceback" not in err
        assert are_gone(tmp_path, GONE_WITHIN_S)
        assert list(temporary.iterdir()) == []

    @pytest.mark.parametrize("number", _ENDING)
    def test_one_of_each_signal_is_enough_and_more_are_ignored(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
    ) -> None:
        def execute(*_: object) -> None:
            try:
                os.kill(os.getpid(), number)
            finally:
                for more in _ENDING:
                    os.kill(os.getpid(), more)

        def unheeded(number: int, _: object) -> None:
            raise AssertionError(f"the study takes no notice of signal {number}")

        before = {one: signal.signal(one, unheeded) for one in _ENDING}
        monkeypatch.setattr(command, "execute", execute)
        try:
            with pytest.raises(SystemExit) as ended:
                main(["study", "--only", "01"])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        assert ended.value.code == 130
        assert list(filter(None, capsys.readouterr().err.splitlines()))[-2:] == _STOPPED


class TestPapermill:
    """One notebook alone, by papermill's own command."""

    def test_killed_in_a_long_trial_it_leaves_no_process(self, tmp_path: Path) -> None:
        long = (
            "-p",
            "rate",
            "20",
            "-p",
            "duration_s",
            "60",
            "-p",
            "workers",
            "2",
            "-p",
            "iterations",
            "20000",
        )
        with start(tmp_path, *papermill("02-single-vs-cluster", *long)) as process:
            until(lambda: processes(tmp_path, of="lab.load.generator"))
            assert processes(tmp_path, of="lab.servers")
            process.kill()
        assert process.returncode != 0
        assert are_gone(tmp_path, GONE_WITHIN_S)

    def test_notebooks_by_hand_add_up_and_the_summary_has_them_all(self, tmp_path: Path) -> None:
        def by_hand(notebook: str, **parameters: object) -> str:
            output = tmp_path / "out.ipynb"
            assert execute(notebook, output, parameters) is None
            return output.read_text()

        few: dict[str, object] = {"pools": [], "dispatches": ["round-robin"], "kept": []}
        by_hand("05-dispatch", **catalog.profile_parameters("smoke", "05-dispatch") | few)
        by_hand("01-hot-loop", **catalog.profile_parameters("smoke", "01-hot-loop"))
        summary = by_hand("00-summary")
        assert "<td>dispatch</td>" in summary
        assert "<td>hot-loop</td>" in summary
        (run,) = (tmp_path / "data").iterdir()
        assert len(_checksums(run, "trials/*")) == 1
        assert len(_checksums(run, "tables/hot-loop-*")) == 1

    def test_a_wrong_parameter_is_named_in_the_last_line(self, tmp_path: Path) -> None:
        command = papermill("02-single-vs-cluster", "-p", "run", "007")
        done = finish(tmp_path, *command)
        assert done.returncode != 0
        last = "UsageError: parameter run must be text, got 7: set it in the parameters cell or with -r run"
        assert done.stderr.rstrip().splitlines()[-1] == last
        assert not (tmp_path / "data").exists(), "nothing was measured"
