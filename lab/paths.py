"""Where things are, wherever the caller stands: JupyterLab, papermill and a shell have different folders."""

import os
from pathlib import Path


def project() -> Path:
    """Return the checkout that holds `notebooks/`."""
    return Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder that results go to: `SCALING_LAB_HOME` if it is set, else the checkout."""
    return Path(os.environ.get("SCALING_LAB_HOME") or project()).resolve()


def notebooks() -> Path:
    """Return the folder of the notebooks."""
    return project() / "notebooks"


def data() -> Path:
    """Return the folder with one folder per run."""
    return home() / "data"


def figures() -> Path:
    """Return the folder that figures are exported to."""
    return home() / "figures"


def reports() -> Path:
    """Return the folder with one report per run."""
    return home() / "reports"
