"""What worker scaling answers: in words, in verdicts, in estimates, and beside what a search found."""

import math

import pandas as pd
import pytest
from helpers.busy_workers import SIX, measured
from helpers.html_page import unlinked

from lab.experiments.claims import Word
from lab.experiments.common import with_unflagged, worded
from lab.experiments.worker_scaling import answer, scaling
from lab.models.statistics import Estimate


def test_the_answer_states_the_gain_and_what_more_workers_do() -> None:
    text = unlinked(answer.answer(measured(*SIX), cpus=2))
    for number in ("1.80 times", "90 % of the ideal", "0.944 (0.944 to 0.944) times what 2 do"):
        assert number in text
    assert "4 workers" not in answer.answer(measured(*({1: 10.0, 2: 18.0} for _ in range(6))), cpus=2)


def test_the_answer_speaks_of_a_worker_per_cpu_whatever_number_was_best() -> None:
    blocks = [{1: 10.0, 2: 15.0, 3: 19.0, 4: 20.0}] * 6
    assert "**3 workers on 3 CPUs" in answer.answer(measured(*blocks, cpus=3), cpus=3)
    assert "**4 workers on 64 CPUs" in answer.answer(measured(*blocks, cpus=64), cpus=64)


def test_fewer_than_six_blocks_tell_nothing_and_nothing_is_bold() -> None:
    text = answer.answer(measured(*SIX[:5]), cpus=2).removeprefix("**Answer.**")
    assert "Cannot be told from 5 blocks" in text
    assert "**" not in text


def test_more_than_the_cpus_can_give_is_not_to_be_believed() -> None:
    text = answer.answer(measured(*[{1: 10.0, 2: 21.3}] * 6), cpus=2)
    assert "That is more than 2 CPUs can give: the machine's speed changed" in text
    assert "more than" not in answer.answer(measured(*[{1: 10.0, 2: 19.9}] * 6), cpus=2)


def test_without_a_base_the_answer_is_that_it_cannot_be_told() -> None:
    assert "Cannot be told" in answer.answer(measured({1: 0, 2: 50}), cpus=2)


@pytest.mark.parametrize(
    ("blocks", "word"),
    [
        ([{1: 10.0, 2: 18.0}, {1: 10.0, 2: 19.0}], "holds"),
        ([{1: 10.0, 2: 21.0}, {1: 10.0, 2: 22.0}], "holds in part"),
        ([{1: 10.0, 2: 19.0}, {1: 10.0, 2: 21.0}], "cannot be told here"),
        ([{1: 10.0, 2: 9.0}, {1: 10.0, 2: 8.0}], "holds in part"),
        ([{1: 10.0, 2: 9.0}, {1: 10.0, 2: 12.0}], "cannot be told here"),
    ],
)
def test_clustering_multiplies_by_less_than_the_workers(blocks: list[dict[int, float]], word: str) -> None:
    assert answer.verdict(measured(*(3 * blocks)), cpus=2).word.value == word


def test_fewer_than_six_blocks_do_not_tell_a_multiple() -> None:
    found = answer.verdict(measured(*(5 * [{1: 10.0, 2: 18.0}])), cpus=2)
    assert found.word is Word.UNTOLD
    assert found.evidence == "2 workers over one: 1.80 times (range of 5 blocks: 1.80 to 1.80), fewer than 6"


def test_no_base_or_no_cluster_is_no_evidence() -> None:
    assert answer.verdict(measured({2: 20.0, 4: 30.0}), cpus=2).evidence == ""
    assert answer.verdict(measured({1: 20.0}), cpus=2).evidence == ""


SEARCHED = pd.DataFrame(
    {
        "workers": [1, 2, 4],
        "topology": ["single", "cluster", "cluster"],
        "lower_rps": [9.5, 25.0, math.nan],
        "upper_rps": [10.0, 26.0, 9.0],
        "lower_share": [0.95, 0.93, math.nan],
        "upper_share": [1.0, 0.98, 1.0],
        "limits_rps": [[10.0] * 7, [20.0] * 7, []],
        "reason": ["", "", "even 9.00/s is too much"],
    }
).assign(dispatch="round-robin", objective="p95", iterations=9, arrivals="constant")


def test_sustained_rates_stand_beside_the_highest_and_are_compared_at_one_speed() -> None:
    rows = measured(*[{1: 10.0, 2: 18.0, 3: 18.0, 4: 17.0}] * 6)
    text = unlinked(answer.answer(rows, 2, SEARCHED))
    assert "They sustain 1.96 times the rate of one process (1.86 to 2.06)." in text
    table = scaling.table(rows, SEARCHED).set_index("workers")
    rates = table["sustained rate, requests/s"].to_dict()
    assert rates == {1: "9.50 to 10.0", 2: "25.0 to 26.0", 3: "", 4: "even 9.00/s is too much"}
    assert table.loc[2, "as a share of the own limit"] == "0.930 to 0.980"
    assert "sustain" not in answer.answer(rows, 4, SEARCHED), "a bound is missing"
    assert "sustain" not in answer.answer(rows, 2, SEARCHED.tail(2)), "the base is missing"
    assert "sustain" not in answer.answer(rows, 2, SEARCHED.assign(reason="others")), "it is not confirmed"


def test_trials_that_are_all_flagged_are_tabled_as_they_are() -> None:
    rows = measured(*SIX, valid=False)
    table = with_unflagged(rows, lambda some: scaling.table(some, SEARCHED))
    assert table["workers"].tolist() == [1, 2, 4]
    assert set(table["trials"]) == {"all"}


def test_what_is_stated_is_what_the_table_shows() -> None:
    rows = measured(*SIX)
    shown = scaling.table(rows).set_index("workers")
    factors = scaling.stack_table(scaling.stacks(rows)).set_index("workers")
    found = {(row.quantity, row.factors): row for row in answer.estimates(rows, cpus=2)}
    assert len(found) == 2 * 3 + 2 + 2 * 4 + 1, "a speed-up over itself is no estimate"

    def text(quantity: str, workers: int) -> str:
        row = found[quantity, f"dispatch=round-robin, workers={workers}"]
        assert (row.n, row.unit) == (6, "requests/s" if quantity == "highest throughput" else "")
        return str(worded(Estimate(row.value, row.low, row.high, row.n, row.interval)))

    assert text("speed-up over one worker", 2) == shown.loc[2, "speed-up"]
    assert text("highest throughput", 1) == shown.loc[1, "highest throughput, requests/s"]
    assert text(answer.CPUS_AT_WORK, 2) == shown.loc[2, "in CPUs' worth of loops"]
    assert text("factor of the speed-up: on a CPU (waiting)", 4) == factors.loc[4, "on a CPU (waiting)"]
    more = found["throughput of 4 workers over that of 2", "dispatch=round-robin"]
    assert more.smallest_told == pytest.approx(max(more.value / more.low, more.high / more.value) - 1)
