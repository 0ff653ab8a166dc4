"""Runs to report: notebooks as if they had been executed, and a run whose speed-up is known."""

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from helpers.study_fakes import condition
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lab.load.log import OUTCOMES
from lab.load.summary import summarize
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.runs import open_run
from lab.study.trial import Attacked

_ANSWERS = 20
"""Of each worker."""
_RATES_RPS = {1: 10.0, 2: 18.0, 4: 17.0}


def write_notebook(path: Path, *cells: Any) -> None:
    """Write an executed notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)


def code(source: str, *outputs: Any, tag: str = "") -> Any:
    """Make a cell of code that gave these outputs."""
    return new_code_cell(
        source, outputs=list(outputs), execution_count=1, metadata={"tags": [tag]} if tag else {}
    )


def prose(text: str) -> Any:
    """Make a cell of Markdown."""
    return new_markdown_cell(text)


def html(markup: str) -> Any:
    """Make the output that `lab.show` and `lab.table` make."""
    return new_output(
        "display_data", {"text/html": markup, "text/plain": "<IPython.core.display.HTML object>"}
    )


def said(text: str) -> Any:
    """Make the output that `lab.say` and a filled `lab.answer` make."""
    return new_output("display_data", {"text/markdown": text, "text/plain": "<Markdown object>"})


def error(name: str, value: str) -> Any:
    """Make the output of a cell that failed."""
    return new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"])


def picture(width: int = 1184, height: int = 672, noise: int = 0) -> str:
    """Make a figure as `lab.show` does: a PNG, flat grey, or with so much noise in it."""
    random = np.random.default_rng(1)
    pixels = 200 + random.integers(0, noise + 1, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    style = f"width:{width / 1.6:.0f}px;max-width:100%"
    return (
        f'<figure><img src="{source}" alt="A line that rises." style="{style}">'
        "<figcaption>Up</figcaption></figure>"
    )


def scaled_run(run_id: str, blocks: int = 6) -> Run:
    """Measure a run in which two workers answer 1.8 times what one does, and four 1.7 times."""
    run = open_run(run_id)
    conditions = [condition(workers=n, topology="cluster", rate=100.0) for n in _RATES_RPS]
    run.measure("worker-scaling", conditions, blocks=blocks, seed=1, execute=_busy)
    return run


def _busy(condition: Condition, seed: int) -> Attacked:
    """Keep all workers busy: each answers one request after the other, all sent at the start."""
    n = condition.workers
    each_s = n / _RATES_RPS[n]
    done, worker = np.divmod(np.arange(n * _ANSWERS), n)
    due_s = np.arange(len(done)) * 1e-6
    requests = pd.DataFrame(
        {
            "due_s": due_s, "sent_s": due_s, "end_s": (done + 1) * each_s,
            "outcome": pd.Categorical(["ok"] * len(done), OUTCOMES), "status": 200,
            "service_s": 0.9 * each_s, "service_cpu_s": 0.9 * each_s * min(n, 2) / n,
            "worker": 100 + worker, "bytes_in": 34,
        }
    ).astype({"status": "Int16", "worker": "Int32", "bytes_in": "Int64"})  # fmt: skip
    summary = summarize(
        requests, url="http://127.0.0.1:1/api/slow", arrivals=condition.arrivals, rate=condition.rate or 1.0,
        duration_s=condition.duration_s, generator={"cpu_s": 0.01},
    )  # fmt: skip
    return Attacked(requests, summary)


def keep_sustained_rates(run: Run, **changes: Any) -> None:
    """Keep what searches would have found: 9 to 9.5/s by one process, 17 to 18/s by two workers.

    A loop takes 0.1 s of CPU time.
    """
    servers = [("single", 1, 9.0, 9.5), ("cluster", 2, 17.0, 18.0)]
    rows = [
        {
            "topology": topology, "workers": workers, "dispatch": "round-robin", "peer": "",
            "rate": rate, "flags": [], "iterations": 1000, "arrivals": "constant",
            "service_cpu_s": 0.1, "utilisation": rate / 10 / workers,
            "objective": "p95 within 3 times the loop", "slo_percentile": 95, "slo_loops": 3.0,
            "reason": "", "consistent": True,
            "lower_share": low / 10 / workers, "upper_share": high / 10 / workers,
            "lower_rps": low, "upper_rps": high,
        }
        for topology, workers, low, high in servers
        for rate in (low, high)
    ]  # fmt: skip
    run.keep("sustained-rates-single-vs-cluster", pd.DataFrame([row | changes for row in rows]))
