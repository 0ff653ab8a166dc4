"""Programs of others that we run: where they are, and which of their packages."""

import os
import shutil
import sys
from pathlib import Path

from lab import files


def find(name: str) -> str | None:
    """Return the path of a program: on PATH, beside this Python, or among the packages of Node."""
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), str(node_modules() / ".bin")]
    return shutil.which(name, path=os.pathsep.join(folders))


def node_modules() -> Path:
    """Return where Node's packages are: in the checkout, or else in the folder for results."""
    return (files.checkout() or files.home()) / "node_modules"
