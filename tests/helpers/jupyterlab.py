"""JupyterLab as a reader has it: a server of its own, and a notebook open in a browser.

Notebooks are copies, and all that JupyterLab keeps is in the folder of the test. Commands run through its own
registry, by the names that its menus use.
"""

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page

from lab import files
from lab.processes import Program, start_program

PATIENCE_S = 60.0
"""How long a test waits for what must come."""

_SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}
"""Nothing is fetched from any host, and nothing pops up."""

_RUNS = "jupyterapp.commands.execute('notebook:run-all-cells')"
_OUTPUTS = """
[...jupyterapp.shell.currentWidget.content.model.cells]
    .filter((cell) => cell.type === "code").map((cell) => cell.outputs.toJSON())
"""
_IS_IDLE = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@dataclass
class Notebook:
    """A notebook that is open in a tab of the browser, with its kernel."""

    page: Page
    lab: "JupyterLab"

    def run_all(self) -> None:
        """Run all its cells, and return when the last has ended, or one has failed."""
        self.page.evaluate(_RUNS)

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Return what each code cell has put out, as nbformat keeps it, also where it is out of sight."""
        found: list[list[dict[str, Any]]] = self.page.evaluate(_OUTPUTS)
        return found

    def errors(self) -> list[str]:
        """Return the errors among the outputs."""
        return [
            f"{output['ename']}: {output['evalue']}"
            for outputs in self.outputs()
            for output in outputs
            if output["output_type"] == "error"
        ]

    def restart(self) -> None:
        """Restart its kernel, saying yes when asked, and return when the new one is idle."""
        self.page.evaluate("void jupyterapp.commands.execute('notebook:restart-kernel')")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Return when its kernel waits for something to do."""
        self.page.wait_for_function(_IS_IDLE)

    def theme(self, name: str) -> None:
        """Change the theme: "JupyterLab Light" or "JupyterLab Dark"."""
        self.page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme})", name)

    def screenshot(self, path: Path) -> None:
        """Keep a picture of the tab."""
        self.page.screenshot(path=path)


@dataclass
class JupyterLab:
    """A running JupyterLab: `url` has its token; `notebooks` is the folder that it shows."""

    url: str
    token: str
    notebooks: Path
    program: Program

    def open(self, page: Page, name: str) -> Notebook:
        """Open a notebook in a tab, and return it when its kernel is idle."""
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(f"{self.url}lab/tree/{name}?token={self.token}&reset")
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext")
        page.evaluate("jupyterapp.shell.currentWidget.context.ready")
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready")
        notebook = Notebook(page, self)
        notebook.wait_until_idle()
        return notebook

    def kernels(self) -> list[int]:
        """Return the pids of its kernels."""
        return [one.pid for one in self.program.processes() if "ipykernel_launcher" in _words(one)]

    def others(self) -> list[int]:
        """Return the pids of whatever its kernels have started, and still runs."""
        ours = {self.program.pid, *self.kernels()}
        return [one.pid for one in self.program.processes() if one.pid not in ours and _words(one)]


@contextmanager
def jupyterlab(folder: Path, home: Path | None = None) -> Iterator[JupyterLab]:
    """Start JupyterLab on copies of the notebooks, all in `folder`; it is gone, with its kernels, afterwards.

    `home` is where runs are kept: by default, `folder`.
    """
    places = {name: folder / name.lower() for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    places |= {name: folder / name.lower() for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    places |= {files.HOME: home or folder}
    for name, settings in _SETTINGS.items():
        file = places["JUPYTER_CONFIG_DIR"] / f"lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    shutil.copytree(files.notebooks(), folder / "notebooks", dirs_exist_ok=True)
    environment = os.environ | {name: str(place) for name, place in places.items()}
    token = secrets.token_hex()
    command = [
        *(
            sys.executable,
            "-m",
            "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            "--port=0",
        ),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'notebooks'}"),
        *("--LabApp.expose_app_in_browser=True", "--LabApp.collaborative=False"),
    ]
    with (
        (folder / "jupyterlab.log").open("wb") as log,
        start_program(command, cwd=folder, stdout=log, stderr=log, env=environment) as program,
    ):
        url = _url(places["JUPYTER_RUNTIME_DIR"], program, folder / "jupyterlab.log")
        yield JupyterLab(url, token, folder / "notebooks", program)
        program.end(within_s=10)


def _url(runtime: Path, program: Program, log: Path) -> str:
    """Wait for the file in which the server says where it listens."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s and program.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.05)
    raise AssertionError(f"JupyterLab has not started:\n{log.read_text(errors='replace')}")


def _words(process: psutil.Process) -> list[str]:
    """Return its command line; nothing once it has ended, even if nobody has waited for it yet."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
