"""The planner in a browser: it answers what lab.models.capacity answers, and takes whatever is typed."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.browser import Reader, browser, reader
from helpers.simulated_servers import Simulated
from nbformat.v4 import new_code_cell, new_notebook

from lab import cpus
from lab.experiments.capacity import EXPERIMENT, Parameters, prediction
from lab.experiments.capacity import case as study
from lab.hotloop import LoopCost
from lab.models.capacity import highest_utilisation, machines_needed, workers_needed
from lab.report import planner
from lab.study import run as run_module
from lab.study import stability
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.runs import open_run
from lab.study.stability import Noise
from lab.study.trial import Attacked

__all__ = ["browser", "reader"]

TEMPLATES = Path(planner.__file__).parent / "templates"

PARAMETERS: dict[str, Any] = {
    "run": "", "rate": 0, "slo_percentile": 99, "slo_loops": 3, "dispatch": "least-busy", "headroom": 0.2,
    "service_s": [], "price_per_core_hour": 0.04, "cpus_per_machine": 0, "workers": 2, "loads": [0.5],
    "duration_s": 1, "kernel": "python", "iterations": 1000, "timeout_s": 30, "blocks": 2, "seed": 1,
}  # fmt: skip

CONSTANT = [0.02]
NEARLY = (0.02 * (1 + 0.05 * np.sin(np.arange(60)))).tolist()
VARYING = (0.02 * (1 + 0.6 * np.sin(np.arange(60)))).tolist()


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "host_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)


def executed(**changes: Any) -> Run:
    """Return a run in which notebook 09 was executed with these parameters."""
    run = open_run("planned")
    source = "\n".join(f"{name}: object = {value!r}" for name, value in (PARAMETERS | changes).items())
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]})]
    path = run.path / "notebooks" / "09-capacity.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return run


Open = Callable[..., Any]


@pytest.fixture
def opened(reader: Reader, tmp_path: Path) -> Open:
    """Return what opens the planner of given service times, waits for its answer, and returns its page."""

    def opens(service_s: list[float], *, hash_: str = "", width: int = 1280, **changes: Any) -> Any:
        css = "".join((TEMPLATES / name).read_text() for name in ("page.css", "planner.css"))
        body = planner.section(executed(service_s=service_s, **changes))
        path = tmp_path / "page.html"
        path.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Planner</title><style>{css}</style>'
            f'<meta name="viewport" content="width=device-width"><main><h1>A run</h1><h2>09</h2>{body}</main>'
        )
        reader.page.set_viewport_size({"width": width, "height": 800})
        reader.page.goto(path.as_uri() + hash_)
        return settled(reader.page)

    return opens


def settled(page: Any) -> Any:
    page.wait_for_selector(".planner:not(.stale) .assumed:not(:empty)")
    return page


def ask(page: Any, **fields: str) -> str:
    """Type into the form, and return the answer's sentence."""
    for name, text in fields.items():
        field = page.locator(f"[name={name}]")
        _ = field.select_option(text) if name == "percentile" else field.fill(text)
    settled(page)
    return words(page)


def words(page: Any) -> str:
    """Return the sentence that is shown, with plain spaces."""
    return str(page.locator(".said").inner_text()).replace("\N{NO-BREAK SPACE}", " ")


def inputs(count: int, mean_s: float, percentiles: tuple[float, ...] = (50, 75, 90, 95, 99, 99.9)) -> Any:
    """Return as many things to ask: up to ten million a second, limits around and far above the mean."""
    draw = random.Random(12)
    return [
        {
            "rate": 10 ** draw.uniform(-1, draw.choice([2, 4, 7])),
            "percentile": draw.choice(percentiles),
            "limit_ms": 1e3 * mean_s * draw.choice([draw.uniform(0.8, 1.2), 1 + 10 ** draw.uniform(-2, 1.5)]),
            "headroom": draw.choice([0, 20]),
            "price": 0.04,
        }
        for _ in range(count)
    ]


DATA = "JSON.parse(document.querySelector('.planner script').textContent)"
PLANS = "(asked) => asked.map((one) => document.querySelector('.planner').plan(one))"


def options(asked: dict[str, float]) -> dict[str, Any]:
    return {"slo_quantile": asked["percentile"] / 100, "slo_s": asked["limit_ms"] / 1e3}


@pytest.mark.parametrize(
    ("service_s", "dispatch"), [(CONSTANT, "least-busy"), (NEARLY, "least-busy"), (NEARLY, "reuseport")]
)
def test_it_answers_what_the_model_answers(opened: Open, service_s: list[float], dispatch: str) -> None:
    asked = inputs(60, float(np.mean(service_s)))
    page = opened(service_s, dispatch=dispatch)
    queue: Any = "random" if dispatch == "reuseport" else "central"
    impossible = extrapolated = 0
    for one, told in zip(asked, page.evaluate(PLANS, asked), strict=True):
        headroom = one["headroom"] / 100
        needed = workers_needed(
            one["rate"], sorted(service_s), dispatch=queue, headroom=headroom, **options(one)
        )
        assert told["workers"] == needed.workers, one
        if needed.workers is None:
            impossible += 1
            continue
        assert told["utilisation"] == pytest.approx(needed.utilisation)
        assert told["fits"] == (needed.workers <= 2)
        if not told["fits"]:
            extrapolated += 1
            fleet = machines_needed(
                one["rate"], 2, sorted(service_s), dispatch=queue, headroom=headroom, **options(one)
            )
            assert told["machines"] == fleet.machines
        if needed.workers <= 8 and needed.utilisation < 0.98:
            limits: Any = {"slo_quantile": one["percentile"] / 100, "dispatch": queue}
            allowed = [
                highest_utilisation(
                    needed.workers, sorted(service_s), slo_s=told["latency_s"] * times, **limits
                )
                for times in (0.99, 1.01)
            ]
            assert allowed[0] <= told["utilisation"] + 1e-5, "with a shorter limit it would be too much"
            assert allowed[1] >= told["utilisation"] - 1e-5
    assert min(impossible, extrapolated, len(asked) - impossible - extrapolated) > 5, "all kinds were asked"


def test_it_plans_with_latency_beside_the_worker_as_09_does(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is subtracted from the objective, at other speeds too, and added to the latency that is expected."""
    known = pd.DataFrame({"block": [1, 2, 3]})
    for name, time_s in (("service_s", 0.019), ("overhead_s", 0.007), ("occupied_s", 0.001)):
        known[name] = [0.8 * time_s, time_s, 1.4 * time_s]
    monkeypatch.setattr(prediction, "calibration", lambda *_: known)
    page, case = opened(CONSTANT), study.case(Parameters(**PARAMETERS | {"service_s": CONSTANT}), known)
    assert case.beside_s == pytest.approx(0.006)
    differ = 0
    for one in (asked for asked in inputs(60, 0.026) if asked["rate"] < 1e3):
        slo_s, headroom = one["limit_ms"] / 1e3, one["headroom"] / 100
        its = replace(case, slo_percentile=one["percentile"], slo_s=slo_s, headroom=headroom)
        (told,) = page.evaluate(PLANS, [one])
        needed = its.needed(one["rate"])
        assert told["workers"] == needed.workers, one
        differ += needed.workers != replace(its, beside_s=0.0).needed(one["rate"]).workers
        if needed.workers is None:
            continue
        ends = [its.needed(one["rate"], case.speeds()[end]).workers for end in ("fastest", "slowest")]
        assert told["ends"] == ends, one
        if needed.utilisation < 0.98:
            seen = [replace(its, slo_s=told["latency_s"] * times, headroom=0.0) for times in (0.99, 1.01)]
            allowed = [some.highest_rps(needed.workers) * case.mean_s / needed.workers for some in seen]
            assert allowed[0] <= needed.utilisation + 1e-5
            assert allowed[1] >= needed.utilisation - 1e-5
    assert differ > 5, "without it, the answers are others"
    assert "one request takes 26.0 ms" in ask(page, limit_ms="25")


def test_of_the_runs_own_objective_it_knows_what_was_simulated(opened: Open) -> None:
    """Under any other it simulates for itself, and is right within a few percent of the rate."""
    page = opened(VARYING)
    own = page.evaluate(DATA + ".asked")
    own |= {"headroom": 0}
    steps = [
        n * highest_utilisation(n, sorted(VARYING), slo_s=own["limit_ms"] / 1e3) / float(np.mean(VARYING))
        for n in range(1, 5)
    ]
    near = [own | {"rate": rate * share} for rate in steps for share in (0.999, 1.001)]
    assert [one["workers"] for one in page.evaluate(PLANS, near)][:7] == [1, 2, 2, 3, 3, 4, 4]
    asked = [one for one in inputs(9, 0.02, (90, 99)) if one["rate"] < 1e4]
    for one, told in zip(asked, page.evaluate(PLANS, asked), strict=True):
        ends: Any = [
            workers_needed(
                one["rate"] * times, sorted(VARYING), headroom=one["headroom"] / 100, **options(one)
            ).workers
            for times in (0.95, 1.05)
        ]
        assert (told["workers"] is None) == (ends[0] is None) == (ends[1] is None)
        assert told["workers"] is None or ends[0] <= told["workers"] <= ends[1]
    assert "simulated" in page.locator(".assumed").inner_text()


def test_trials_of_the_run_are_planned_with_as_in_09(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers whose predictions came true are said to be, and what they sustained is drawn."""
    monkeypatch.setattr(stability, "measure", lambda *_: [LoopCost(9.0, 0.005)] * 3)
    monkeypatch.setattr(run_module, "between", lambda *_: Noise(0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(prediction, "_PLAYS", 100)  # enough for a band that is not the question here
    more: dict[str, Any] = {"loads": [0.4, 0.8], "blocks": 6, "duration_s": 2.0}

    def execute(condition: Condition, seed: int) -> Attacked:
        server = Simulated(loop_s=0.005, workers=condition.workers, noise=0.02, arrivals=condition.arrivals)
        return server(condition.offered_rps, condition.duration_s, seed)

    run, p = executed(**more), Parameters(**PARAMETERS | more)
    how: dict[str, Any] = {"blocks": p.blocks, "seed": p.seed, "execute": execute}
    run.measure(EXPERIMENT, prediction.of_one_worker(p), **how)
    known = prediction.calibration(run, p)
    prediction.predict(run, p, known)
    run.measure(EXPERIMENT, prediction.of_several(p), **how)
    case, page = study.case(p, known), opened([], **more)
    rate = 1.7 * case.highest_rps(2)
    asked = {"rate": rate, "percentile": 99, "limit_ms": 1e3 * case.slo_s, "headroom": 20, "price": 0}
    (told,) = page.evaluate(PLANS, [asked])
    assert told["workers"] == case.needed(rate).workers
    assert told["ends"] == [case.needed(rate, case.speeds()[end]).workers for end in ("fastest", "slowest")]
    low_rps, high_rps = page.evaluate(DATA + ".measured.low_rps"), page.evaluate(DATA + ".measured.high_rps")
    assert low_rps < 1.2 * case.highest_rps(2)
    assert high_rps > case.highest_rps(2) / 1.2
    assert page.locator("svg .measured").count() == page.locator("svg .validated").count() == 1
    assert "validated" in ask(page, rate=f"{0.9 * case.highest_rps(2)}", headroom="0")


def test_a_run_without_notebook_09_has_no_planner() -> None:
    assert planner.section(open_run("another")) == ""
    assert planner.section(executed()) == "", "no trial, and no service times given"
    assert planner.section(executed(service_s=[0.1], dispatch="no such")) == ""


def test_answers_are_one_sentence_and_say_what_is_impossible(opened: Open, reader: Reader) -> None:
    page = opened(CONSTANT, width=360)
    assert ask(page, rate="20", limit_ms="100", headroom="0").startswith(
        "20.0/s with p99 within 100 ms needs 1 worker"
    )
    assert "Impossible on these CPUs: 5,000/s" in (said := ask(page, rate="5,000"))
    assert "machines like this one behind a balancer" in said
    assert (
        ask(page, limit_ms="10")
        == "No number of workers keeps p99 within 10.0 ms: one request takes 20.0 ms."
    )
    assert "none may ever wait" not in ask(page, limit_ms="20", rate="1")
    assert page.locator(".said").get_attribute("aria-live") == "polite"
    assert "NaN" not in page.locator(".planner").inner_text()
    assert reader.errors == reader.requests == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


BAD = [
    ("rate", "0", "The rate must be a number above 0"),
    ("rate", "-5", "got -5"),
    ("rate", "many", "got many"),
    ("rate", "", "got nothing"),
    ("rate", "1e99", "The rate must be at most 100,000,000,000"),
    ("limit_ms", "1,00", "The limit must be a number above 0"),
    ("limit_ms", "Infinity", "got Infinity"),
    ("limit_ms", "<img src=x onerror=alert(1)>", "got <img src=x onerror=a"),
    ("headroom", "-1", "The headroom must be a number at least 0"),
    ("price", "free", "The price must be a number at least 0"),
]


def test_bad_input_is_one_clear_line(opened: Open, reader: Reader) -> None:
    page = opened(CONSTANT)
    for field, text, says in BAD:
        good = page.input_value(f"[name={field}]")
        page.fill(f"[name={field}]", text)
        assert says in (said := words(page))
        assert "\n" not in said
        assert page.locator(f"[name={field}]").get_attribute("aria-invalid") == "true"
        assert not page.locator("dl").is_visible(), "no answer to another question stays"
        ask(page, **{field: good})
        assert page.locator("dl").is_visible()
    assert reader.errors == []


@pytest.mark.parametrize("service_s", [CONSTANT, VARYING])
def test_a_billion_a_second_is_answered_at_once(opened: Open, service_s: list[float]) -> None:
    page = opened(service_s)
    page.fill("[name=rate]", "1e9")
    page.wait_for_function("document.querySelector('.said').innerText.includes('1,000,000,000/s')")
    assert "Impossible on these CPUs" in words(page)
    assert "NaN" not in page.locator(".planner").inner_text()


def test_a_limit_of_a_day_and_a_rate_of_one_a_day(opened: Open) -> None:
    page = opened(CONSTANT)
    assert "needs 2 workers" in ask(page, rate="60", limit_ms="86,400,000", headroom="0")
    assert "needs 1 worker" in ask(page, rate="1e-5", limit_ms="60")


def test_an_answer_can_be_shared_and_the_runs_own_comes_back(opened: Open) -> None:
    page = opened(CONSTANT)
    first = words(page)
    said = ask(page, rate="77", percentile="95", headroom="5")
    assert said != first
    address = page.url.partition("#")[2]
    page = opened(CONSTANT, hash_=f"#{address}")
    assert words(page) == said
    page.click("button[type=reset]")
    page.wait_for_function("document.querySelector('[name=rate]').value !== '77'")
    assert words(settled(page)) == first
    page.goto(page.url.partition("#")[0] + "#planner?rate=junk&percentile=12&other=1")
    page.wait_for_selector(".planner.wrong")
    assert "got junk" in words(page)


def test_the_picture_tells_measured_from_extrapolated(opened: Open) -> None:
    page = opened(CONSTANT)
    said = ask(page, rate="90", limit_ms="60")
    label = page.locator("svg").get_attribute("aria-label")
    assert label.replace("\N{NO-BREAK SPACE}", " ") == said
    assert page.locator("svg .here").count() == 2
    assert page.locator("svg .beyond").count() >= 2
    styles = {
        kind: page.locator(f"svg .{kind}").first.evaluate("(one) => getComputedStyle(one).strokeDasharray")
        for kind in ("here", "beyond")
    }
    assert styles["here"] != styles["beyond"]
    assert not page.locator("table").is_visible()


def test_without_a_script_it_is_a_table(opened: Open, reader: Reader, tmp_path: Path) -> None:
    opened(CONSTANT)
    html = (tmp_path / "page.html").read_text()
    reader.page.set_content(html.replace('type="module"', 'type="no"'))
    assert not reader.page.locator("form").is_visible()
    assert "needs" in reader.page.locator(".said").inner_text()
    rows = reader.page.locator("tbody tr").all_inner_texts()
    assert rows[0].startswith("1\t")
    assert len(rows) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Open, reader: Reader, scheme: Any) -> None:
    reader.page.emulate_media(color_scheme=scheme)
    page = opened(CONSTANT)
    assert reader.violations() == []
    page.fill("[name=rate]", "")
    assert reader.violations() == []
