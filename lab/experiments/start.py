"""What the start page says: what to run, in which order, how long it takes, and what was measured here."""

import html
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab import files
from lab.experiments import catalog
from lab.load.generators import kept_ceiling_rps
from lab.machine import describe
from lab.study.manifest import Manifest, other_machine
from lab.study.runs import find_runs, open_run
from lab.study.stability import MOST_OTHERS_CPU, MOST_STEAL, between, snapshot
from lab.units import clock, counted, per_second, percent

PLAYGROUND = "playground"
"""The notebook to play in, which is no part of a study."""

_GLANCE_S = 0.4
"""How long the machine is looked at: enough to see that others use it."""

_SHOWN_RUNS = 5

_MARKS = {
    "08-instrument": ("ceilings", "stalls", "tools"),
    "10-your-server": ("size",),
}
"""How the trials and tables of a notebook begin, if not with the notebook's own name."""


class Piece:
    """A piece of the start page, as HTML; JupyterLab opens its links in a tab."""

    def __init__(self, markup: str) -> None:
        self._markup = markup

    def _repr_html_(self) -> str:
        return self._markup


def notebooks() -> Piece:
    """List the notebooks in running order: what each asks, how long it takes, and where it was measured."""
    last = {name: _begun(about) for about in reversed(_here()) for name in _measured(about)}
    rows = [
        (
            _link(f"{name}.ipynb", name),
            _escaped(_question(name)),
            clock(catalog.lasts_s(name, {})),
            _in_full(name),
            last.get(name, "not yet") if catalog.measures(name) else "reads runs",
        )
        for name in catalog.notebooks()
    ]
    if (files.notebooks() / f"{PLAYGROUND}.ipynb").exists():
        link, asks = _link(f"{PLAYGROUND}.ipynb", PLAYGROUND), _escaped(_question(PLAYGROUND))
        rows.append((link, asks, "as you like", "–", "keeps nothing"))
    return Piece(_table(("notebook", "question", "takes", "in full", "last measured"), rows) + _times())


def _in_full(name: str) -> str:
    """Write how long a notebook takes with profile full, if that has it."""
    if not catalog.measures(name) or name not in catalog.select([], "full"):
        return "–"
    return clock(catalog.lasts_s(name, catalog.profile_parameters("full", name)))


def _times() -> str:
    """Say how long all of it takes: as the notebooks stand, and in full."""
    usual, full = (_total_s(profile) for profile in (catalog.USUAL, "full"))
    return (
        f'<p style="margin-top:1em"><code>{_study()}</code> in a terminal runs what profile <em>quick</em>'
        f" has, in this order, and writes a report: about <strong>{clock(usual)}</strong>."
        f" <code>lab study --profile full</code> takes about {clock(full)}.</p>"
    )


def _study() -> str:
    return "make study" if files.checkout() else "lab study"


def _total_s(profile: str) -> float:
    names = catalog.select([], profile)
    return sum(catalog.lasts_s(name, catalog.profile_parameters(profile, name)) for name in names)


def here() -> Piece:
    """Say what machine this is, how fit it is to measure on now, and what to do next."""
    return Piece(f"{_machine()}<p><strong>Next:</strong> {_next(_here())}</p>")


def _machine() -> str:
    """Say in a line what machine this is, how quiet it is now, and how far its load generator is believed."""
    before = snapshot()
    time.sleep(_GLANCE_S)
    noise = between(before, snapshot())
    said = [f"others use {percent(noise.others_cpu)} of its CPU time now"]
    if noise.steal > MOST_STEAL:
        said.append(f"the hypervisor takes {percent(noise.steal)}")
    quiet = noise.others_cpu <= MOST_OTHERS_CPU and noise.steal <= MOST_STEAL
    said.append("quiet enough to measure" if quiet else "trials measured meanwhile would be flagged")
    ceiling_rps = kept_ceiling_rps(keepalive=False)
    believed = (
        f"Its load generator can be believed up to {_escaped(per_second(ceiling_rps))}."
        if ceiling_rps
        else "<code>lab doctor</code> says in a minute up to which rate its load generator can be believed."
    )
    now = "; ".join(map(_escaped, said))
    return f"<p><strong>{_escaped(describe())}</strong>: {now}. {believed}</p>"


def runs() -> Piece:
    """List the newest runs that were measured on this machine, with their reports; count all others."""
    mine, known = _here(), find_runs()
    if not mine:
        return Piece(f"<p>Nothing has been measured on this machine yet.{_elsewhere(len(known))}</p>")
    rows = []
    for about in mine[:_SHOWN_RUNS]:
        report = files.reports() / about.run_id / "index.html"
        name = _place(report, about.run_id) if report.exists() else _escaped(about.run_id)
        measured = [notebook[:2] for notebook in catalog.notebooks() if notebook in _measured(about)]
        trials = open_run(about.run_id).trial_count()
        plan = f"{about.profile or 'by hand'}, {about.status}"
        rows.append((name, *map(_escaped, (_begun(about), plan, " ".join(measured) or "–", trials))))
    earlier = len(mine) - len(rows)
    more = f"<p>{_escaped(counted(earlier, 'earlier run'))}: <code>lab runs</code>.</p>" if earlier else ""
    others = _elsewhere(len(known) - len(mine))
    table = _table(("run (opens its report)", "begun", "profile", "notebooks", "trials"), rows)
    return Piece(f"{table}{more}{f'<p>{others.strip()}</p>' if others else ''}")


def _elsewhere(number: int) -> str:
    if not number:
        return ""
    link = _link("11-machines.ipynb", "notebook 11")
    return f" {_escaped(counted(number, 'run'))} of other machines can be compared with it: {link}."


def _next(mine: Sequence[Manifest]) -> str:
    usual = [name for name in catalog.select([], catalog.USUAL) if catalog.measures(name)]
    if not mine:
        first = _link(f"{usual[0]}.ipynb", usual[0])
        return f"open {first} and run all its cells, or leave everything to <code>{_study()}</code>."
    newest, measured = mine[0], _measured(mine[0])
    if newest.status == "unfinished":
        return f"run {_escaped(newest.run_id)} is not finished: <code>{_study()}</code> goes on with it."
    left = [name for name in usual if name not in measured]
    if newest.status == "open" and left:
        had = f"{len(measured)} of {len(usual)} notebooks are measured in the newest run"
        return f"{_link(f'{left[0]}.ipynb', left[0])}, as {had}."
    return f"{_reading(newest)} Then ask how many workers your own server needs: {_link(*_OWN)}."


_OWN = ("10-your-server.ipynb", "notebook 10")


def _reading(newest: Manifest) -> str:
    """Say where the report of a run is, and how far its trials are to be believed."""
    flags = open_run(newest.run_id).flagged()
    trials, flagged = sum(map(len, flags.values())), sum(map(sum, flags.values()))
    about = f"{counted(trials, 'trial')}, {flagged or 'none'} of them flagged"
    report = files.reports() / newest.run_id / "index.html"
    if report.exists():
        return f"read {_place(report, 'the report')} on {_escaped(newest.run_id)}: {about}."
    return f"<code>lab report {_escaped(newest.run_id)}</code> writes the report on {about}."


def _here() -> list[Manifest]:
    """Return the runs that were measured on this machine, newest first."""
    return [run for run in find_runs() if not other_machine(run)]


def _begun(about: Manifest) -> str:
    """Write when a run was begun, by the clock on the wall."""
    return f"{about.started_at.astimezone():%Y-%m-%d %H:%M}"


def _measured(about: Manifest) -> set[str]:
    """Name the notebooks of which a run has trials or tables."""
    kept = open_run(about.run_id).names()
    marks = {name: _MARKS.get(name, (name[3:],)) for name in catalog.notebooks() if catalog.measures(name)}
    return {name for name, begins in marks.items() if any(one.startswith(begins) for one in kept)}


def _question(name: str) -> str:
    """Return the question that a notebook's first heading asks."""
    cells = catalog.cells(name)
    heading = re.match(r"# (.+)", "".join(cells[0]["source"])) if cells else None
    return heading[1] if heading else name


def _place(path: Path, text: str) -> str:
    """Link to a file where JupyterLab serves it; else say where it is."""
    root = files.checkout()
    if root is None or not path.is_relative_to(root):
        return f"{_escaped(text)} (<code>{_escaped(path)}</code>)"
    return _link(os.path.relpath(path, files.notebooks()), text)


def _link(target: str, text: str) -> str:
    return f'<a href="{html.escape(quote(target))}">{_escaped(text)}</a>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of ready-made HTML, aligned to the left; only the second column breaks its lines."""
    left = "text-align:left;vertical-align:top;white-space:"
    styles = [f'style="{left}{"normal" if column == 1 else "nowrap"}"' for column in range(len(head))]
    names = "".join(f"<th {style}>{_escaped(name)}</th>" for style, name in zip(styles, head, strict=True))
    lines = (
        "".join(f"<td {style}>{cell}</td>" for style, cell in zip(styles, row, strict=True)) for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="lab" style="margin:0"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'


def _escaped(value: Any) -> str:
    return html.escape(str(value))
