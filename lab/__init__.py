"""Scaling Lab: how far does clustering take a CPU-bound web server? The names a notebook uses."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.load.attack import attack
    from lab.notebook import answer, say, show, table
    from lab.servers import serve
    from lab.study.runs import open_run
    from lab.study.sustained import sustained

__all__ = ["answer", "attack", "open_run", "say", "serve", "show", "sustained", "table"]

_HOME = {
    "answer": "lab.notebook",
    "attack": "lab.load.attack",
    "open_run": "lab.study.runs",
    "say": "lab.notebook",
    "serve": "lab.servers",
    "show": "lab.notebook",
    "sustained": "lab.study.sustained",
    "table": "lab.notebook",
}
"""Where each name lives; it is imported on first use, so that `import lab` stays light."""


if not os.environ.get("MPLBACKEND", "module://").startswith("module://"):
    del os.environ["MPLBACKEND"]  # our figures need no backend, and a wrong name breaks matplotlib's import


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lab' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
