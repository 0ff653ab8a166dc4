"""Files are whole or not there at all; what is no plain file is written to, not replaced."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.files import check_writable, replacing, write_whole


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there/file", tmp_path / "link"
    link.symlink_to("there/file")
    for content in (b"into a dangling link", b"into a link"):
        check_writable(link)
        write_whole(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "link", "there"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    check_writable(fifo)
    write_whole(fifo, b"content")
    reader.join()
    assert read == [b"content"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_to() -> None:
    check_writable(Path("/dev/null"))
    write_whole(Path("/dev/null"), b"content")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_device_that_takes_nothing_is_said() -> None:
    with pytest.raises(LabError, match=r"^cannot write /dev/full: no space left on device"):
        write_whole(Path("/dev/full"), b"content")


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"")
    path.chmod(0o604)
    write_whole(path, b"content")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.parametrize("refused", ["fchown", "fchmod"])
def test_where_no_owner_or_mode_can_be_set_the_content_is_kept(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"")

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(os, refused, refuse)
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_file_that_may_not_be_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    may = os.access
    monkeypatch.setattr(os, "access", lambda place, how: place != path and may(place, how))  # root may all
    for write in (check_writable, lambda path: write_whole(path, b"new")):
        with pytest.raises(LabError, match="cannot write"):
            write(path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def write(content: bytes) -> None:
        with replacing(tmp_path / "file") as file:
            file.write(content)
            both.wait()

    threads = [threading.Thread(target=write, args=(content * 1000,)) for content in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [check_writable, lambda path: write_whole(path, b"")])
def test_a_folder_that_is_none_is_said(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot write"):
        write(tmp_path / "file" / "a")
