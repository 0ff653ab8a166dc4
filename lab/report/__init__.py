"""Executed notebooks in, one HTML page out: the answer first, then every notebook. It needs no network."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from lab import files, units
from lab.errors import LabError
from lab.experiments import catalog, summary
from lab.files import write_whole
from lab.report import evidence, front, planner, replay
from lab.report.article import TEMPLATES, Article, read
from lab.study import manifest
from lab.study.archive import export_run
from lab.study.run import Run
from lab.study.runs import run_in
from lab.study.store import Store

_EMBEDDED = re.compile(r'(?<=src=")data:image/([a-z]+);base64,([^"]+)')


def write_report(run_id: str, to_come: Sequence[str] | None = None, *, in_folder: bool = False) -> Path:
    """Write `reports/<run_id>/index.html` from the run's executed notebooks; return its path.

    It is a single file; with `in_folder`, its pictures, the run's figures and its data are files beside it.
    The page says which notebooks are still to run: those in `to_come`, or else those planned for the run but
    never executed. While a study has some in `to_come`, it leaves out what takes time: the sections beside
    the notebooks' own results. Raises LabError if the run has no executed notebook yet, or if one of them
    cannot be read; UsageError if `run_id` cannot name a run.
    """
    folder = files.data() / files.named(run_id)
    if not folder.is_dir():
        raise LabError(f"there is no run {run_id!r}: `lab runs` lists them")
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    if not executed:
        raise LabError(
            f"run {run_id!r} has no executed notebooks to report: `{_executing(folder)}` makes them"
        )
    is_interim = bool(to_come)
    if to_come is None:
        to_come = _never_executed(folder, {path.stem for path in executed})
    place = files.reports() / run_id
    beside = _put_beside(place, folder) if in_folder else []
    known = (folder / manifest.NAME).exists()
    articles = [read(path, below_verdicts=known) for path in executed]
    page = _render(folder, articles, to_come, beside, is_interim=is_interim)
    write_whole(place / "index.html", (_detached(page, place) if in_folder else page).encode())
    return place / "index.html"


def _executing(folder: Path) -> str:
    """Return the command that executes the notebooks of a run; of another machine's, those that only read."""
    about = manifest.read_manifest(folder) if (folder / manifest.NAME).exists() else None
    elsewhere = about is not None and manifest.other_machine(about)
    reading = [name for name in catalog.notebooks() if not catalog.measures(name)] if elsewhere else []
    return evidence.made_by(about, folder.name, reading)


def _never_executed(folder: Path, executed: set[str]) -> list[str]:
    if not (folder / manifest.NAME).exists():
        return []
    return [name for name in manifest.read_manifest(folder).notebooks if name not in executed]


def _render(
    folder: Path, articles: list[Article], to_come: Sequence[str], beside: Sequence[Path], *, is_interim: bool
) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    environment.globals.update(digits=units.digits)
    run = run_in(folder) if (folder / manifest.NAME).exists() else None
    sections = {} if is_interim else {one.name: _sections(run, one) for one in articles}
    page = environment.get_template("page.html.j2").render(
        run_id=folder.name,
        articles=articles,
        to_come=to_come,
        css="".join(path.read_text() for path in sorted(TEMPLATES.glob("*.css"))),
        script=(TEMPLATES / "page.js").read_text(),
        sections=sections,
        links={one.name: _links(folder, one, beside) for one in articles},
        packed=next((f"data/{path.name}" for path in beside if path.suffix == ".zip"), ""),
        **_front(environment, run),
    )
    return _without_dead_links(page)


_LEADING = re.compile(rf'<a href="#{units.ANCHOR}([0-9a-f]+)">(.*?)</a>', re.DOTALL)


def _without_dead_links(page: str) -> str:
    """Leave as text the numbers whose estimate the page does not hold, as while a study goes on."""
    held = set(re.findall(rf'id="{units.ANCHOR}([0-9a-f]+)"', page))
    return _LEADING.sub(lambda link: link[0] if link[1] in held else link[2], page)


def _front(environment: Environment, run: Run | None) -> dict[str, Any]:
    """Return what the first screen and the verdicts say; nothing of a folder that only holds notebooks."""
    if run is None:
        return {"setting": []}
    found: dict[str, Any] = {"setting": front.setting(run.manifest)}
    try:
        trials = summary.trials_of(run)
        found["verdicts"] = front.judged(summary.verdicts(run, trials)) if trials else []
        headline = front.headline(run, trials)
    except LabError as error:
        return found | {"trouble": str(error)}
    if headline:
        drawn = environment.get_template("picture.svg.j2").render(
            picture=headline.picture, **headline.picture.ticks
        )
        found |= {"headline": headline, "picture": drawn}
    return found


_SECTIONS: dict[str, list[Callable[[Run], str]]] = {
    "05-dispatch": [replay.section],
    "09-capacity": [planner.section],
}
"""What a notebook ends with beside its own results."""


def _sections(run: Run | None, article: Article) -> list[str]:
    """Return the sections that a notebook ends with, as HTML; none where the run's data cannot be read."""
    try:
        own = [section(run) for section in _SECTIONS.get(article.name, []) if run]
        return [*own, evidence.section(run, article.experiment)] if run else own
    except LabError:
        return []  # the first screen says why


@dataclass(frozen=True)
class _Link:
    """A file or some files of a run: as a link, or with an empty `href` as text."""

    text: str
    href: str = ""


def _links(folder: Path, article: Article, beside: Sequence[Path]) -> list[_Link]:
    """Name the data and figures of a notebook, by their paths; or link to those beside the page."""
    if mine := [path for path in beside if path.stem in (*article.figures, article.experiment)]:
        return [_Link(path.name, f"{path.parent.name}/{path.name}") for path in mine]
    counts = {
        kind: len(
            [
                *(folder / kind).glob(f"{article.experiment}.*"),
                *(folder / kind).glob(f"{article.experiment}-*"),
            ]
        )
        for kind in ("trials", "requests", "events", "tables")
    }
    data = [
        _Link(f"data/{folder.name}/{kind}/{article.experiment}* ({units.counted(count, 'file')})")
        for kind, count in counts.items()
        if count
    ]
    figures = [f"{files.figures().name}/{folder.name}/{name}.svg" for name in article.figures]
    return [*data, *(_Link(path) for path in figures if (files.home() / path).exists())]


def _put_beside(place: Path, folder: Path) -> list[Path]:
    """Put a run's figures, trials and export beside its page, and return their paths."""
    run, put = run_in(folder), []
    for figure in sorted(run.figures.glob("*.svg")):
        put.append(place / "figures" / figure.name)
        write_whole(put[-1], figure.read_bytes())
    for experiment in sorted({trial_id.partition(".")[0] for trial_id in Store(folder).trial_ids()}):
        put.append(place / "data" / f"{experiment}.csv")
        write_whole(put[-1], run.trials(experiment).to_csv(index=False).encode())
    put.append(place / "data" / f"{run.run_id}.zip")
    export_run(run.run_id, put[-1])
    return put


def _detached(page: str, place: Path) -> str:
    """Write the pictures of a page into files beside it, and return the page that shows those."""

    def into_file(embedded: re.Match[str]) -> str:
        content = base64.b64decode(embedded[2])
        name = f"figures/{hashlib.sha256(content).hexdigest()[:16]}.{embedded[1]}"
        write_whole(place / name, content)
        return name

    return _EMBEDDED.sub(into_file, page)
