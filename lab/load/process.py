"""The starter's view of one generator: start it, tell it when, hear from it, and be sure that it is gone."""

import contextlib
import json
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from lab.errors import LabError
from lab.load.log import read_columns
from lab.load.spec import Spec

_GRACE_S = 2.0


class GeneratorProcess:
    """A running generator; leaving the `with` block ends it."""

    def __init__(self, spec: Spec, due_s: bytes) -> None:
        self._planned = len(due_s) // array("d").itemsize
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # an interrupt of the starter's group is for the starter to pass on
        )
        self._write(f"{spec.to_json()}\n{self._planned}\n".encode() + due_s)

    def __enter__(self) -> "GeneratorProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def start(self, start_s: float) -> None:
        """Let the schedule begin at this instant of `time.monotonic`, a clock that all processes share."""
        self._write(f"{start_s!r}\n".encode())

    def stop(self) -> None:
        """Ask it to end now and to hand in what it has."""
        self._write(b"stop\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what it says: `ready`, `progress`, and last `health` and errors with the `columns`.

        Raises LabError if it ends without that.
        """
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  (Popen was given a pipe)
        try:
            for line in stdout:
                message: dict[str, Any] = json.loads(line)
                if "health" in message:
                    message["columns"] = dict(read_columns(stdout, self._planned))
                    yield message
                    return
                yield message
        except (EOFError, ValueError):
            pass
        raise LabError(f"a load generator ended early: {self._last_words()}")

    def close(self) -> None:
        """End the process and wait until it is gone: cut its lifeline, and kill it if that is not enough."""
        assert self._process.stdin is not None  # noqa: S101  (Popen was given pipes)
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  (Popen was given a pipe)
        with contextlib.suppress(BrokenPipeError):  # it is gone; `messages` says why
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _last_words(self) -> str:
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        return next(
            (line.strip() for line in reversed(lines) if line.strip()), f"status {self._process.returncode}"
        )
