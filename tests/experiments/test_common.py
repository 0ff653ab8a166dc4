"""What the notebooks share: names of servers, flags, and the number of workers."""

from typing import cast

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments import common, control
from lab.flags import Flag
from lab.models.statistics import estimate
from lab.study.parameters import Parameters
from lab.study.run import Run
from lab.study.runs import open_run


def test_servers_are_named_by_what_tells_them_apart() -> None:
    rows = trials(
        {}, {"topology": "cluster", "workers": 1}, {"topology": "cluster", "workers": 2, "dispatch": "shared"}
    )
    for order in (rows, rows[::-1]):
        found = common.by_server(order)
        assert [name for name, _ in found] == ["one process", "1 worker, round-robin", "2 workers, shared"]
        assert [len(mine) for _, mine in found] == [1, 1, 1]


def test_cpus_means_a_worker_for_each() -> None:
    assert common.resolve("cpus") == available_cpus() >= 1
    assert common.resolve(3) == 3


@pytest.mark.parametrize(
    ("blocks", "words"),
    [(1, "range over 1 block,"), (5, "too few"), (6, "95 % interval of the median over 6 blocks")],
)
def test_a_bar_is_named_for_what_it_is(blocks: int, words: str) -> None:
    assert words in common.spread_is(blocks)


def _spoilt(*flags: tuple[Flag, ...]) -> list[dict[str, object]]:
    return [{"valid": False, "flags": found} for found in flags]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([2.0], "2.00 (1 block)"),
        ([1.0, 2.0, 4.0], "2.00 (range of 3 blocks: 1.00 to 4.00)"),
        ([1.0, 2.0, 2.0, 2.0, 2.0, 4.0], "2.00 (1.00 to 4.00)"),
    ],
)
def test_what_is_no_interval_says_of_how_many_it_is_the_range(values: list[float], words: str) -> None:
    assert common.worded(estimate(values)) == words


def test_throughput_is_of_the_time_in_which_all_workers_could_be_busy() -> None:
    """Two workers of 10/s; the second runs out of work after one second, the first after two."""
    ended = {1: [n / 10 for n in range(1, 21)], 2: [n / 10 for n in range(1, 11)]}
    rows = [
        {"trial_id": "a", "outcome": "ok", "worker": worker, "sent_s": 0.0, "end_s": end_s, "service_s": 0.1}
        for worker, ends_s in ended.items()
        for end_s in ends_s
    ]

    class Ran:
        def requests(self, _: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame(rows)

    rows_of = trials({"trial_id": "a", "workers": 2, "throughput_rps": 30 / 2})
    (found,) = common.accounted(cast(Run, Ran()), rows_of).to_dict("records")
    assert (found["window_s"], found["busy_rps"]) == pytest.approx((1.0, 20.0))


def test_flagged_trials_are_counted_by_reason_with_the_range_of_their_values() -> None:
    stolen = [Flag("steal", share, 0.02) for share in (0.09, 0.11)]
    drifted = [Flag("loop_drift", change, 0.15) for change in (-0.25, 0.2)]
    late = Flag("earlier_version")
    rows = _spoilt((late, stolen[0]), (stolen[1],), (drifted[0],), (drifted[1],), (late,))
    assert common.flag_table(trials({}, *rows)).to_numpy().tolist() == [
        ["flagged by an earlier version, which kept no codes", "2 of 6", "", ""],
        ["CPU time that the hypervisor took", "2 of 6", "9 %", "11 %"],
        ["the loop's cost drifted within the block", "2 of 6", "-25%", "+20%"],
    ]


def test_without_a_flag_the_table_says_so() -> None:
    assert common.flag_table(trials({}, {})).to_numpy().tolist() == [["no trial is flagged", "0 of 2"]]


def _highest(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise UsageError("nothing to tabulate")
    return pd.DataFrame({"highest rate": [rows["rate"].max()]})


@pytest.mark.parametrize(
    ("rates", "flagged_rates", "table"),
    [
        ([1, 3], [], {"highest rate": [3]}),
        ([1, 3], [2], {"trials": ["all", "unflagged"], "highest rate": [3, 3]}),
        ([1], [2, 3], {"trials": ["all", "unflagged"], "highest rate": [3, 1]}),
        ([], [2], {"trials": ["all"], "highest rate": [2]}),
    ],
)
def test_a_table_has_rows_without_the_flagged_trials_if_there_are_some(
    rates: list[int], flagged_rates: list[int], table: dict[str, list[object]]
) -> None:
    rows = [*({"rate": rate} for rate in rates), *({"rate": rate, "valid": False} for rate in flagged_rates)]
    assert common.with_unflagged(trials(*rows), _highest).to_dict("list") == table


class _Loops(Parameters):
    kernel: str = "python"
    iterations: common.Iterations = "auto"


def test_auto_iterations_become_those_of_the_run_and_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "iterations", lambda run, kernel: 1234)
    run = open_run()
    assert common.settled(_Loops(), run).iterations == 1234
    assert common.settled(_Loops(iterations="1e5"), run).iterations == 100_000


@pytest.mark.parametrize("wrong", [-1, 1.5, "automatic", True, None, [7]])
def test_iterations_are_a_whole_number_or_auto(wrong: object) -> None:
    with pytest.raises(UsageError, match="parameter iterations must be 'auto' or a whole number, at least 0"):
        _Loops.from_notebook({"kernel": "python", "iterations": wrong})
