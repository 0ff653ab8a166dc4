"""Programs of others that we run: where they are, in which version, and what brings them."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab import files


class Origin(Protocol):
    """Where a program comes from."""

    def missing(self) -> str | None:
        """Return the command that brings what is not here; None if all of it is."""

    def version(self) -> str:
        """Return the version of what is here."""


@dataclass(frozen=True)
class Distribution:
    """One of Python's, by its `name` on the package index."""

    name: str

    def missing(self) -> str | None:
        """Return the command that installs all of Python's peers."""
        try:
            importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return "pip install 'scaling-lab[peers]'"
        return None

    def version(self) -> str:
        """Return its version."""
        return importlib.metadata.version(self.name)


@dataclass(frozen=True)
class NodePackages:
    """Node, with `names`, packages from its index."""

    names: tuple[str, ...]

    def missing(self) -> str | None:
        """Return the command that brings Node, or else the packages."""
        if find("node") is None or find("npm") is None:
            return "apt install nodejs npm"
        if all(self._manifest(name).is_file() for name in self.names):
            return None
        return "make node_modules/.ready" if files.checkout() else f"npm install {' '.join(self.names)}"

    def version(self) -> str:
        """Return the version of Node, and of each package."""
        packages = [
            f"{name} {json.loads(self._manifest(name).read_text())['version']}" for name in self.names
        ]
        return ", ".join([f"Node {_printed('node', '--version')}", *packages])

    def _manifest(self, name: str) -> Path:
        return node_modules() / name / "package.json"


@dataclass(frozen=True)
class SystemPackage:
    """A program of the system, with the `name` of its package."""

    name: str

    def missing(self) -> str | None:
        """Return the command that installs it."""
        return None if find(self.name) else f"apt install {self.name}"

    def version(self) -> str:
        """Return the version that it prints for `-v`."""
        return _printed(self.name, "-v")


def find(name: str) -> str | None:
    """Return the path of a program: on PATH, beside this Python, or among the packages of Node."""
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), str(node_modules() / ".bin")]
    return shutil.which(name, path=os.pathsep.join(folders))


def node_modules() -> Path:
    """Return where Node's packages are: in the checkout, or else in the folder for results."""
    return (files.checkout() or files.home()) / "node_modules"


def _printed(program: str, option: str) -> str:
    """Return the first version number that a program prints."""
    done = subprocess.run([find(program) or program, option], capture_output=True, text=True, check=False)
    number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return number[0] if number else "of an unknown version"
