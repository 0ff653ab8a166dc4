"""What a command says reaches its reader whatever the streams are: other encodings, closed, full, left."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.load_rows import GENERATOR, rows
from helpers.load_servers import greet, serving

from lab.cli import main
from lab.load.attack import Result, summarized

COMMAND = [sys.executable, "-m", "lab", "attack"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the records of an attack whose report has a micro sign."""
    path = tmp_path_factory.mktemp("kept") / "a.parquet"
    summarized(
        rows([0.00014] * 20),
        url="http://x/",
        arrivals="constant",
        rate=10.0,
        duration_s=2.0,
        generator=GENERATOR,
        errors={},
        warmup_errors={},
    ).save(path)
    return path


def redirected(how: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `lab attack` as a shell would, with its streams redirected so."""
    command = ["/bin/sh", "-c", f'"$@" {how}', "-", *COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, encoding="latin-1", env=os.environ | environment, check=False
    )


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("koi8-r", "140 us"), ("ascii", "140 us"), ("cp1252", "140 \xb5s"), ("utf-8", "140 \xc2\xb5s")],
)
def test_a_terminal_is_shown_what_it_can_show(
    kept: Path, encoding: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    with pytest.raises(SystemExit, match="0"):
        main(["attack", "--from", str(kept)])
    assert written in shown.getvalue().decode("latin-1")


def test_the_plainest_locale_will_do(kept: Path) -> None:
    done = redirected("", "--from", kept, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "140 us" in done.stdout


def test_a_name_that_is_no_text_is_printed_as_it_is(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.svg")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))
    with pytest.raises(SystemExit, match="0"):
        main(["plot", str(kept), "--out", str(path)])
    assert shown.getvalue() == os.fsencode(path) + b"\n"
    assert path.exists()


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_a_result_needs_no_stderr(how: str) -> None:
    with serving(greet) as server:
        done = redirected(
            how, server.url, "--rate", 20, "--duration", "0.2s", "--slo", "p99=1us", "--format", "json"
        )
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] == 4


def test_a_file_is_written_though_every_stream_is_closed(tmp_path: Path) -> None:
    with serving(greet) as server:
        options = ["--rate", 20, "--duration", "0.2s", "--out", tmp_path / "a.parquet"]
        done = redirected(">&- 2>&- <&-", server.url, *options)
    assert done.returncode == 0
    assert Result.load(tmp_path / "a.parquet").summary["ok"] == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "arguments", [("attack", "--from", "a.parquet"), ("runs", "--format", "json"), ("plot", "a.parquet")]
)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...], kept: Path) -> None:
    command = [sys.executable, "-m", "lab", *arguments]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=kept.parent, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("lab: cannot write to stdout: no space left on device; ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_told_nothing(kept: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "--from", kept, "--format", "csv"], stdout=write, stderr=-1, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_no_color_and_dumb_terminals_get_no_escape_codes(kept: Path) -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [*COMMAND, "--from", kept],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "dumb"},
        check=True,
    )
    os.close(theirs)
    told = os.read(ours, 65_536)
    os.close(ours)
    assert told.startswith(b"Requests")
    assert b"\x1b" not in told
