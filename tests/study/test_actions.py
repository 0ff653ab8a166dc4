"""A trial in which things are done to its server: what is kept, read again, and never measured twice."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from helpers.study_fakes import condition, fake_attack

from lab.errors import LabError
from lab.study import trial
from lab.study.plan import Condition, Event
from lab.study.runs import damage, open_run
from lab.study.trial import Action, Attacked, LeftS, with_actions

if TYPE_CHECKING:
    from lab.servers import Server

TWO = {"topology": "cluster", "workers": 2, "iterations": 20_000, "duration_s": 2.0}


def _grow(server: "Server") -> str:
    server.scale(3)
    return "it has room"


def _fail(server: "Server") -> None:
    raise LabError("it cannot be done")


def test_actions_are_done_in_order_and_kept_with_the_trial() -> None:
    run = open_run()
    left_s = []

    def actions(_: object, server: "Server", left: LeftS) -> Iterator[Action]:
        yield Action("grow", _grow)
        left_s.append(left())
        assert len(server.workers) == 3, "it is asked for when the one before is over"
        yield Action("fail", _fail)

    execute = with_actions(actions)
    trials = run.measure("acts", [condition(20, **TWO)], blocks=1, seed=1, execute=execute)
    events = run.events(trials)
    assert events["trial_id"].unique().tolist() == trials["trial_id"].tolist()
    assert events["at_s"].is_monotonic_increasing
    acts = events[events["event"] != Event.WORKERS]
    assert acts["event"].tolist() == [Event.BEGUN, Event.DONE, Event.BEGUN, Event.FAILED]
    assert acts["detail"].tolist() == ["grow", "it has room", "fail", "it cannot be done"]
    assert acts["workers"].tolist() == [2, 3, 3, 3]
    assert 2.0 - acts["at_s"].iloc[2] <= left_s[0] <= 2.0 - acts["at_s"].iloc[1], "it was asked in between"

    def never(*_: object) -> None:
        pytest.fail("a trial that is on disk was carried out again")

    again = open_run(run.run_id)
    read = again.measure("acts", [condition(20, **TWO)], blocks=1, seed=1, execute=never)  # type: ignore[arg-type]
    assert again.events(read).equals(events)
    assert again.seal().state == "complete"
    assert damage() == []


@pytest.fixture
def elapsed_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace server and attack by one that reports these times; the test may add to them."""
    reported: list[float] = []

    def offer(server: object, condition: Condition, seed: int, hear: Callable[[object], None]) -> Attacked:
        for second in reported:
            hear(SimpleNamespace(elapsed_s=second))
        return fake_attack(condition, seed)

    monkeypatch.setattr(trial, "offer", offer)
    monkeypatch.setattr(trial, "fresh_server", lambda _: nullcontext(SimpleNamespace(workers=[1, 2])))
    return reported


def test_what_goes_wrong_in_an_action_is_raised_and_the_trial_is_not_kept(elapsed_s: list[float]) -> None:
    def broken(server: "Server") -> None:
        raise ZeroDivisionError

    elapsed_s.append(1.0)
    run = open_run()
    execute = with_actions(lambda *_: [Action("break", broken)])
    with pytest.raises(ZeroDivisionError):
        run.measure("acts", [condition(20)], blocks=1, seed=1, execute=execute)
    assert run.trials("acts").empty


@pytest.mark.usefixtures("elapsed_s")
def test_an_attack_that_is_over_too_soon_is_told_in_one_line() -> None:
    execute = with_actions(lambda *_: [Action("grow", _grow)])
    with pytest.raises(LabError, match="let it last at least 2 s"):
        open_run().measure("acts", [condition(20)], blocks=1, seed=1, execute=execute)


def test_events_of_a_trial_that_was_never_finished_are_removed(elapsed_s: list[float]) -> None:
    elapsed_s.append(1.0)
    run = open_run()
    execute = with_actions(lambda *_: [])
    run.measure("acts", [condition(20)], blocks=1, seed=1, execute=execute)
    (left,) = (run.path / "trials").iterdir()
    left.unlink()
    run.measure("other", [condition(20)], blocks=1, seed=1, execute=execute)
    assert [path.stem.split(".")[0] for path in (run.path / "events").iterdir()] == ["other"]
