"""What notebook 07 measures of which server, and that one which fails does not end it."""

from typing import Any

import pandas as pd
import pytest
from helpers.server_rows import PARAMETERS, seen
from helpers.study_fakes import fake_attack

from lab.errors import LabError, UsageError
from lab.experiments.other_servers import trials as study
from lab.experiments.other_servers.servers import PEERS, ServerError, factors, look
from lab.hotloop import LoopCost
from lab.study import stability
from lab.study.plan import Condition
from lab.study.runs import open_run
from lab.study.trial import Attacked


def parameters(**changes: Any) -> study.Parameters:
    return study.Parameters.from_notebook(PARAMETERS | changes)


def planned(speed: dict[str, float], **changes: Any) -> list[Condition]:
    groups = study.by_blocks(parameters(**changes), speed)
    return [condition for _, _, group in groups for condition in group]


def test_without_names_all_peers_are_asked_for_and_those_here_are_measured() -> None:
    p = parameters()
    assert study.asked(p) == ["least-busy", "round-robin", *PEERS]
    here = {name for name, peer in PEERS.items() if peer.missing is None}
    assert set(study.wanted(p)) == {"least-busy", "round-robin"} | here
    assert study.asked(parameters(peers=["pm2", "pm2"])) == ["least-busy", "round-robin", "pm2"]


def test_an_unknown_peer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="there is no peer 'uvicron': did you mean uvicorn"):
        parameters(peers=["uvicron"])


def test_a_load_follows_the_servers_own_loop() -> None:
    """A loop that takes a quarter of Python's time is offered four times as much."""
    loads = {
        (one.labels["server"], one.labels["part"]): one.load
        for one in planned({"least-busy": 1.0, "node-cluster": 4.0}, events=[])
    }
    assert loads == pytest.approx(
        {
            ("least-busy", "overload"): 1.4,
            ("least-busy", "tail"): 0.8,
            ("node-cluster", "overload"): 5.6,
            ("node-cluster", "tail"): 3.2,
        }
    )


def test_nothing_is_done_to_a_server_that_it_cannot_take() -> None:
    speed = dict.fromkeys(["least-busy", "offload", "node", "uvicorn"], 1.0)
    acted_on = [one for one in planned(speed) if one.labels["part"] == "actions"]
    assert {one.labels["server"]: one.labels["turns"] for one in acted_on} == {
        "least-busy": "block reload kill",
        "offload": "block kill",
        "node": "block",
        "uvicorn": "block reload kill",
    }
    assert {one.labels["server"]: one.workers for one in acted_on}["node"] == 1


def test_a_faster_language_has_a_longer_loop_but_not_where_loops_are_compared() -> None:
    speed = {"least-busy": 1.0, "uvicorn": 1.04, "node": 3.9, "node-cluster": 4.1, "pm2": 4.2}
    found = planned(speed, kernels=["numba"])
    steps = {(one.labels["server"], one.labels["part"]): one.iterations for one in found}
    assert {steps[server, "tail"] for server in ("least-busy", "uvicorn")} == {20_000}
    assert {
        steps[server, part] for server in ("node", "pm2") for part in ("overload", "tail", "actions")
    } == {82_000}
    assert {steps[server, "kernels"] for server in ("one process", "node", "node-cluster")} == {20_000}
    assert ("pm2", "kernels") not in steps
    assert not [one for one in planned(speed) if one.labels["part"] == "kernels"], "none is asked for"


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose loop always costs the same, so that nothing is timed."""
    monkeypatch.setattr(stability, "measure", lambda kernel, iterations, repeats: [LoopCost(0.01, 0.01)])


def test_a_server_that_fails_in_a_look_or_in_a_trial_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, steady: None
) -> None:
    def looked_at(server: str, *_: object) -> pd.DataFrame:
        if server == "uvicorn":
            raise ServerError(server, "it ended, with status 3")
        return seen(server)

    def attacked(condition: Condition, seed: int) -> Attacked:
        if condition.peer == "granian" or (condition.peer == "hypercorn" and condition.peer not in unlucky):
            unlucky.append(condition.peer)
            raise LabError("the server did not answer its warm-up")
        return fake_attack(condition, seed)

    unlucky: list[str] = []

    monkeypatch.setattr(study, "look", looked_at)
    monkeypatch.setattr(study, "serve_and_attack", attacked)
    run, p = open_run(), parameters(ours=["least-busy"], peers=["uvicorn", "granian", "hypercorn"], events=[])
    looks, silent = study.looked(run, p)
    assert silent == {"uvicorn": "it ended, with status 3"}
    assert set(looks["server"]) == {"least-busy"} | ({"granian", "hypercorn"} & set(study.wanted(p)))
    trials, broken = study.measure(run, p, looks)
    assert broken == {
        "granian": "the server did not answer its warm-up",
        "hypercorn": "one trial was repeated: the server did not answer its warm-up",
    }
    assert sorted(unlucky) == ["granian", "granian", "hypercorn"]
    assert set(trials["server"]) == {"least-busy", "hypercorn"}
    assert set(run.trials(study.EXPERIMENT)["server"]) == {"least-busy", "hypercorn"}

    def not_again(*_: object) -> Attacked:
        raise LabError("it is measured")

    monkeypatch.setattr(study, "serve_and_attack", not_again)
    again, _ = study.measure(run, p, looks[looks["server"] != "granian"])
    assert set(again["trial_id"]) == set(trials["trial_id"]), "what was measured is kept"


def test_if_none_starts_that_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(server: str, *_: object) -> pd.DataFrame:
        raise ServerError(server, "it ended, with status 3")

    monkeypatch.setattr(study, "look", fails)
    with pytest.raises(LabError, match="no server could be measured; least-busy: it ended, with status 3"):
        study.looked(open_run(), parameters(ours=["least-busy"], peers=["uvicorn"]))


@pytest.mark.parametrize("server", ["reuseport", "gunicorn-sync"])
def test_a_look_tells_who_listens_how_large_each_worker_is_and_who_answers(server: str) -> None:
    if server in PEERS and (command := PEERS[server].missing):
        pytest.skip(f"{server} is not on this machine: {command}")
    condition = Condition(rate=1.0, duration_s=1.0, keepalive=True, iterations=2_000, **factors(server, 2))
    (row,) = look(server, condition, [2, 4], 8).to_dict("records")
    assert row["server"] == server
    assert row["listeners"] == {"reuseport": 2, "gunicorn-sync": 1}[server]
    assert 5 * 2**20 < row["pss_bytes"] < 500 * 2**20
    assert 0 < row["ready_s"] < 30
    assert 0.2 < row["speed"] < 5, "the same loop in the same language"
    assert (row["few_connections"], row["many_connections"]) == (2, 4)
    for kept in ("few", "many"):
        assert 1 <= row[f"{kept}_busiest"] <= 2
        assert 1 <= row[f"{kept}_coins"] <= row[f"{kept}_coins_most"] <= 2


def test_a_server_that_does_not_start_is_blamed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise LabError("gunicorn ended before it answered, with status 3")

    monkeypatch.setattr("lab.servers.peers.start", fails)
    condition = Condition(rate=1.0, duration_s=1.0, iterations=2_000, peer="gunicorn-sync")
    with pytest.raises(ServerError, match="gunicorn ended before it answered") as caught:
        look("gunicorn-sync", condition, [2, 4], 8)
    assert caught.value.server == "gunicorn-sync"
