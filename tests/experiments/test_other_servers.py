"""What is said of the servers that others wrote: as much as was measured of each, and who was not."""

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked
from helpers.server_rows import COMPARED, measured, seen

from lab.experiments.claims import Word
from lab.experiments.other_servers import analysis
from lab.experiments.other_servers import answer as words
from lab.experiments.other_servers import figure as views
from lab.experiments.other_servers import servers as named
from lab.experiments.other_servers import trials as study
from lab.experiments.other_servers.analysis import Found, found
from lab.figures import title_of
from lab.models.simulation import waits
from lab.servers.peers import Peer
from lab.study.estimates import table_of
from lab.study.plan import Event

NOTHING_DONE = pd.DataFrame(columns=["server", "block", "kind", "took_s", "detail", "lost", "due", "waited"])

THREE: dict[str, dict[str, float]] = {
    "least-busy": {"limit": 0.93, "tail": 1.05},
    "uvicorn": {"limit": 0.98, "tail": 1.05},
    "granian": {"limit": 0.99, "tail": 1.6},
}


def summed_up(trials: pd.DataFrame, **changes: float) -> list[Found]:
    return found(trials, seen(*dict.fromkeys(trials["server"]), **changes), NOTHING_DONE)


def test_the_answer_names_the_ends_ours_and_every_server_that_is_nearer_to_the_ideal() -> None:
    trials = measured(THREE)
    text = unlinked(words.answer(summed_up(trials), trials))
    assert "they answer 93" in text
    assert "(ours, least-busy) to 9" in text
    assert "nearer than ours, least-busy: uvicorn (1.05 times); granian (1.0" in text
    assert " times, at 1.5" in text, "and what granian buys it with"
    assert "have answered one; HTTP is read and written in compiled code. Their" in text
    assert "Their p90 is 1.05" in text
    assert "(granian) times one ideal queue's." in text, "of the tail, nobody is nearer"


@pytest.mark.parametrize(
    ("ours", "saves"),
    [
        ("round-robin", ["workers that accept by themselves", "event loops that take all"]),
        ("least-busy", ["event loops that take all"]),
        ("shared", []),
    ],
)
def test_what_a_nearer_server_saves_is_told_if_ours_does_not(ours: str, saves: list[str]) -> None:
    trials = measured({ours: {"limit": 0.93}, "uvicorn": {"limit": 0.98}})
    _, _, why = words.answer(summed_up(trials), trials).partition("Why: ")
    told = why.partition(".")[0].split("; ") if why else []
    assert len(told) == len(saves)
    assert all(reason.startswith(start) for reason, start in zip(told, saves, strict=True))


def test_only_a_share_beyond_that_of_fair_coins_is_told() -> None:
    trials = measured({"least-busy": {}, "granian": {}})
    looked_at = seen("least-busy", few_busiest=2.0, few_coins_most=2.0), seen("granian", many_busiest=1.6)
    text = unlinked(words.answer(found(trials, pd.concat(looked_at), NOTHING_DONE), trials))
    assert "the busiest worker answers more than fair coins may give it in: granian." in text


def test_too_few_blocks_name_no_server_as_nearer() -> None:
    trials = measured(THREE, blocks=5)
    assert "nearer than" not in words.answer(summed_up(trials), trials)
    table = words.load_table(summed_up(trials), trials)
    ratios = table.filter(like="over ours").iloc[1:]
    assert ratios.map(lambda text: text.endswith("cannot be told")).all(axis=None)


def test_the_table_compares_with_the_first_server_by_pairs() -> None:
    trials = measured(THREE)
    share = words.load_table(summed_up(trials), trials)["share, over ours, least-busy's"]
    assert share[0] == "the reference"
    assert share[1].startswith("1.05 (")
    assert share[1].endswith(": more")


def test_a_server_that_is_not_here_or_failed_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nowhere:
        def missing(self) -> str:
            return "apt install nothing"

        def version(self) -> str:
            raise AssertionError

    gone = Peer("gone", "Gone", "Python", ("gone",), Nowhere())
    monkeypatch.setitem(named.PEERS, "gone", gone)
    table = words.servers_table(
        ["least-busy", "uvicorn", "gone"], seen("least-busy"), {"uvicorn": "it ended, with status 3"}
    )
    assert table["server"].tolist() == ["ours, least-busy", "uvicorn", "Gone"]
    assert table["what went wrong"].tolist() == [
        "",
        "it ended, with status 3",
        "it is not here; what brings it: apt install nothing",
    ]
    assert table["sockets that listen"].tolist() == ["1", "–", "–"]


def test_what_was_not_measured_leaves_its_tables_and_figures_out() -> None:
    trials = measured(THREE).head(0)
    looked_at = found(trials, seen("uvicorn"), NOTHING_DONE)
    assert "no server's busiest worker answers more than fair coins" in words.answer(looked_at, trials)
    assert words.load_table(looked_at, trials).iloc[0, 1:].isin(["–", "the reference"]).all()
    assert views.servers_figure(looked_at, trials) is None
    assert views.speed_figure(looked_at, trials) is None
    assert words.speed_table(looked_at, trials).iloc[0, 0] == "No loop was measured by itself."
    assert words.estimates(trials) == []
    assert [verdict.word for verdict in words.verdicts(trials)] == [Word.UNTOLD]


@pytest.mark.parametrize(
    ("pm2", "nginx", "word"),
    [
        (1.0, 1.0, Word.HOLDS),
        (1.5, 1.0, Word.IN_PART),
        (1.5, 1.5, Word.NOT_HERE),
        (None, 1.0, Word.UNTOLD),
    ],
)
def test_claim_9_holds_unless_manager_or_balancer_make_requests_take_longer(
    pm2: float | None, nginx: float, word: Word
) -> None:
    servers = {"node-cluster": 1.0, "round-robin": 1.0, "nginx-round-robin": nginx} | (
        {"pm2": pm2} if pm2 else {}
    )
    managed = words.verdicts(measured({name: {"mean": mean} for name, mean in servers.items()}))[-1]
    assert (managed.number, managed.word) == (9, word)
    assert ("not measured" in managed.evidence) == (pm2 is None)
    few = words.verdicts(measured({name: {"mean": mean} for name, mean in servers.items()}, blocks=5))[-1]
    assert few.word is Word.UNTOLD


def test_claim_4_is_judged_by_the_two_ways_of_nodes_cluster() -> None:
    turns, managed = words.verdicts(
        measured({"node-cluster": {}, "node-cluster-shared": {"busiest": 1.9, "tail": 1.6}})
    )
    assert (turns.number, turns.word, turns.about) == (4, Word.HOLDS, "Node's cluster")
    assert managed.number == 9
    one_way = words.verdicts(measured({"node-cluster": {}}))
    assert [verdict.number for verdict in one_way] == [9]


def test_what_loops_and_workers_buy_is_told_apart() -> None:
    rows = measured({"one process": {}, "least-busy": {}, "node": {}, "node-cluster": {}}, blocks=1)
    rows = rows[rows["part"] == "overload"]
    python = rows.head(2).assign(part="kernels", busy_rps=[50.0, 95.0])
    numba = rows.head(2).assign(part="kernels", kernel="numba", busy_rps=[250.0, 400.0])
    longer = rows.tail(2).assign(busy_rps=[50.0, 95.0])
    node = rows.tail(2).assign(part="kernels", busy_rps=[200.0, 380.0])
    trials = pd.concat([python, numba, longer, node], ignore_index=True)
    servers = summed_up(trials.head(2).tail(1))
    table = words.speed_table(servers, trials)
    assert table["loop"].tolist() == ["python", "V8 (Node)", "numba"]
    assert table["times, by the loop"].tolist() == ["1.00 (1 block)", "4.00 (1 block)", "5.00 (1 block)"]
    assert table["times, by both"].tolist() == ["1.90 (1 block)", "7.60 (1 block)", "8.00 (1 block)"]
    assert "A loop in numba answers 5.00 (1 block) times as much as one in plain Python" in words.answer(
        servers, trials
    )
    figure = views.speed_figure(servers, trials)
    assert figure is not None
    assert title_of(figure).endswith("?"), "one block states nothing"
    rows = pd.concat([trials.assign(block=block) for block in range(1, 7)])
    figure = views.speed_figure(servers, rows)
    assert figure is not None
    assert "5.0 times as much, more workers 1.9 times" in title_of(figure)


def test_an_ideal_server_is_at_1_and_one_that_wastes_half_of_its_time_is_not() -> None:
    """Loops of .1 s, one due each .2 s on two workers, so nobody waits; one server takes twice as long."""
    trials = measured({"least-busy": {}, "uvicorn": {}}, blocks=1).drop(columns=COMPARED)
    trials = trials.assign(service_mean_s=0.1, busy_rps=10.0, rate=5.0, sent=60)
    due_s = 0.2 * np.arange(60)
    requests = pd.concat(
        pd.DataFrame(
            {"trial_id": trial["trial_id"], "due_s": due_s, "end_s": due_s + took_s, "service_s": 0.1,
             "service_cpu_s": 0.09, "worker": 1.0 + np.arange(60) % 2, "outcome": "ok"}
        )
        for trial in trials.to_dict("records")
        for took_s in [0.1 if trial["server"] == "least-busy" else 0.2]
    )  # fmt: skip
    trials["latency_p95_s"] = trials["latency_mean_s"] = np.where(trials["server"] == "uvicorn", 0.2, 0.1)
    beside = analysis.compared(trials, requests, 2)
    tails = beside[beside["part"] == "tail"].set_index("server")
    assert tails["tail_share"].unique().tolist() == [0.95]
    assert tails["tail_over_ideal"].to_dict() == pytest.approx({"least-busy": 1.0, "uvicorn": 2.0})
    assert beside["limit_share"].tolist() == pytest.approx([0.5] * 4)
    assert beside.loc[beside["part"] == "overload", "tail_over_ideal"].isna().all()


def test_a_queue_that_grows_is_no_overhead_of_each_request() -> None:
    """Others take the CPUs: two workers with loops of .1 s get 40 requests in .4 s, so nearly all wait."""
    trials = measured({"least-busy": {}}, blocks=1).drop(columns=COMPARED)
    trials = trials[trials["part"] == "tail"].assign(service_mean_s=0.1, busy_rps=20.0, rate=100.0, sent=40)
    due_s, on_top_s = 0.01 * np.arange(40), 0.001
    took_s = waits(due_s, np.full(40, 0.1 + on_top_s), 2) + 0.1 + on_top_s
    requests = pd.DataFrame(
        {"trial_id": trials["trial_id"].iloc[0], "due_s": due_s, "end_s": due_s + took_s, "service_s": 0.1,
         "service_cpu_s": 0.05, "worker": 1.0, "outcome": "ok"}
    )  # fmt: skip
    trials["latency_p90_s"], trials["latency_mean_s"] = np.quantile(took_s, 0.9), took_s.mean()
    (beside,) = analysis.compared(trials, requests, 2).to_dict("records")
    assert beside["tail_over_ideal"] == pytest.approx(1.0, abs=1e-6)
    assert beside["mean_over_ideal"] == pytest.approx(1.0, abs=1e-6)


def test_threads_that_take_turns_are_judged_by_cpu_time() -> None:
    trials = measured({"gunicorn-gthread": {}}, blocks=1).assign(
        peer="gunicorn-gthread", service_mean_s=0.4, service_cpu_mean_s=0.1, busy_rps=18.0
    )
    trials = trials[trials["part"] == "overload"].drop(columns=COMPARED)
    requests = pd.DataFrame(columns=["trial_id"])
    assert analysis.compared(trials, requests, 2)["limit_share"].tolist() == pytest.approx([0.9])


def test_what_is_done_to_a_server_is_counted_by_what_was_done() -> None:
    """A slow request that holds up one of two others; a reload; a kill that loses one, with no successor."""
    trials = measured({"uvicorn": {}}, blocks=1).head(1).assign(part="actions")
    log = [
        (1.0, Event.BEGUN, "block"), (2.0, Event.DONE, "7"),
        (3.0, Event.BEGUN, "reload"), (3.5, Event.DONE, ""),
        (4.0, Event.BEGUN, "kill"), (9.0, Event.FAILED, "worker 7 was not replaced"),
    ]  # fmt: skip
    noted = pd.DataFrame(log, columns=["at_s", "event", "detail"]).assign(trial_id="0", workers=2)
    requests = pd.DataFrame(
        [(1.1, 2.1, 7, "ok"), (1.2, 1.3, 8, "ok"), (3.1, 3.2, 8, "ok"), (4.1, 4.2, np.nan, "reset")],
        columns=["due_s", "end_s", "worker", "outcome"],
    ).assign(trial_id="0", service_s=0.1)
    requests["latency_s"] = requests["end_s"] - requests["due_s"]
    done = study.events(trials, requests, noted)
    assert done["kind"].tolist() == ["block", "reload", "kill"]
    assert done["lost"].tolist() == [0, 0, 1]
    (one,) = found(trials, seen("uvicorn"), done)
    assert one.delayed is not None
    assert one.delayed.value == 0.5
    table = words.keep_table([one])
    assert str(table["reload: over after"][0]).startswith("500 ms")
    assert table["kill: over after"][0] == "not in time"
    assert str(table["memory for each worker (PSS)"][0]).startswith("50 MiB")


def test_requests_lost_and_delayed_are_whole_and_no_more_than_all() -> None:
    trials = measured({"uvicorn": {}})
    kills = [{"kind": "kill", "block": block, "lost": lost} for block, lost in enumerate([0, 0, 1, 1, 1, 2])]
    slow = [
        {"kind": "block", "block": block, "waited": waited}
        for block, waited in enumerate([7, 8, 9, 9, 9, 10])
    ]
    done = pd.DataFrame([*kills, *slow]).assign(server="uvicorn", due=10, took_s=1.0)
    (one,) = found(trials, seen("uvicorn"), done)
    assert words.keep_table([one])["kill: requests lost"][0] == "1 (0 to 2)"
    assert one.delayed is not None
    assert one.delayed.high == 1


def test_one_process_has_nobody_to_share_with() -> None:
    trials = measured({"node": {}, "node-cluster": {}})
    one, two = summed_up(trials)
    assert (one.few, one.many, one.new) == (None, None, None)
    assert two.few is not None
    shares = words.share_table([one, two])
    assert shares.iloc[0, 1:].eq("–").all()
    stated = table_of(words.estimates(trials))
    assert not stated["factors"][stated["quantity"].str.contains("busiest")].eq("server=node").any()


def test_the_figure_has_a_row_for_each_server_nearest_first_and_says_who_is() -> None:
    trials = measured(THREE)
    figure = views.servers_figure(summed_up(trials), trials)
    assert figure is not None
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[-1] == "granian"
    assert set(rows) == {"ours, least-busy", "uvicorn", "granian"}
    assert title_of(figure).endswith("furthest: granian")
