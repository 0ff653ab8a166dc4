"""The rules that people give each other: the verdict on each by trials made by hand, in words and figures."""

import math
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.folk_trials import Given, beside, events, held, looked, parameters, rates, tails, told
from helpers.html_page import unlinked
from helpers.trial_rows import trials

from lab.experiments.claims import Word
from lab.experiments.folk_rules import counts, held_up, memory, replicas, throttled, workers
from lab.experiments.folk_rules import rules as study
from lab.experiments.folk_rules.rules import Ruling, exceeds, with_tail
from lab.experiments.folk_rules.trials import BALANCED, CENTRAL, HASHED
from lab.figures import rendered, title_of
from lab.flags import Flag
from lab.models.queueing import mdc_wait_quantile
from lab.models.statistics import Estimate, Interval
from lab.servers.peers import Peer
from lab.study.run import Run

FLAGGED: dict[str, Any] = {"valid": False, "flags": (Flag("others_cpu", 0.5, 0.1),)}


def of_five(work: Given, tail: Given) -> Ruling:
    """Judge five workers by their work and tail over those of two."""
    return workers.ruling(
        rates({"workers-2": 1.0, "workers-5": work}), tails({"workers-2": 1.0, "workers-5": tail}), 2, 2
    )


SPREAD = [0.9, 1.0, 1.2, 1.3, 1.4, 1.5]


@pytest.mark.parametrize(
    ("low", "high", "told"), [(1.2, 1.5, True), (0.9, 1.05, False), (0.9, 1.2, None), (1.1, 1.3, None)]
)
def test_an_estimate_is_beyond_a_bar_by_its_whole_interval(
    low: float, high: float, told: bool | None
) -> None:
    assert exceeds(Estimate(1.1, low, high, 6, Interval.MEDIAN), 1.1) is told
    assert exceeds(Estimate(1.1, low, high, 5, Interval.RANGE), 1.1) is None
    assert exceeds(None, 1.1) is None


@pytest.mark.parametrize(
    ("work", "tail", "word"),
    [
        (1.0, 1.5, Word.NOT_HERE),
        (1.0, 1.0, Word.NOT_HERE),
        (1.5, 0.5, Word.HOLDS),
        (1.5, 1.5, Word.IN_PART),
        (1.0, 0.5, Word.IN_PART),
        (SPREAD, 1.0, Word.UNTOLD),
        ([1.0] * 5, [1.0] * 5, Word.UNTOLD),
    ],
)
def test_2n_plus_1_must_do_more_work_or_have_a_shorter_tail(work: Given, tail: Given, word: Word) -> None:
    assert of_five(work, tail).verdict.word is word


def test_2n_plus_1_says_by_how_much_and_whose_trials_it_took() -> None:
    two, five = {"workers-2": 1.0, "workers-5": 1.0}, {"workers-2": 1.0, "workers-5": 1.5}
    found = workers.ruling(rates(two), tails(five), 2, 2, [1, 2, 4])
    assert unlinked(found.answer).startswith("5 workers do 0.996 times (")
    assert "their p99 is 1.49 times" in unlinked(found.answer)
    assert unlinked(found.number) == "0.996 times the work"
    assert found.source == "The work of 1, 2 and 4 workers is that of notebook 04's trials."
    assert found.markdown.endswith(found.source)


def test_2n_plus_1_cannot_be_told_for_another_n_without_overload_or_if_all_is_flagged() -> None:
    two = {"workers-2": 1.0, "workers-5": 1.0}
    few = workers.ruling(rates(two), tails(two), 2, 4)
    assert few.answer == "Cannot be told here: the rule is about 4 CPUs, and n is 2."
    never = workers.ruling(rates({"workers-2": math.nan, "workers-5": math.nan}), tails(two), 2, 2)
    assert "could be overloaded" in never.answer
    flagged = workers.ruling(rates(two, **FLAGGED), tails(two, **FLAGGED), 2, 2)
    assert never.verdict.word is flagged.verdict.word is Word.UNTOLD
    assert (flagged.verdict.flagged, flagged.verdict.trials) == (24, 24)


@pytest.mark.parametrize(
    ("turns", "chance", "word"),
    [
        (1.0, 1.7, Word.IN_PART),
        (1.6, 1.7, Word.NOT_HERE),
        (1.0, 1.1, Word.HOLDS),
        (SPREAD, 1.7, Word.UNTOLD),
        ([1.0] * 5, [1.7] * 5, Word.UNTOLD),
    ],
)
def test_replicas_are_as_good_as_workers_if_their_tail_is_no_longer(
    turns: Given, chance: Given, word: Word
) -> None:
    found = replicas.ruling(
        tails({CENTRAL: 3.0, "workers-2": _times(3, turns), HASHED: _times(3, chance)}), 2
    )
    assert found.verdict.word is word
    assert found.answer.startswith("Compared with one server with 2 workers, the p99 is ")


@pytest.mark.parametrize(
    ("missing", "why"), [("apt install nginx", "`apt install nginx` brings it"), (None, "failed to start")]
)
def test_replicas_say_why_nginx_is_not_among_them(
    missing: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peer, "missing", missing)
    servers = {CENTRAL: 3.0, "workers-2": 3.0, HASHED: 3.0}
    assert why in replicas.ruling(tails(servers), 2).markdown
    assert replicas.ruling(tails(servers | {BALANCED: 3.0}), 2).source == ""


def _times(factor: float, given: Given) -> Given:
    return [factor * one for one in given] if isinstance(given, list) else factor * given


def test_one_worker_is_no_more_than_one_replica() -> None:
    assert "one worker is one replica" in replicas.ruling(tails({CENTRAL: 1.0, "workers-1": 1.0}), 1).answer


@pytest.mark.parametrize(
    ("host", "right", "word"),
    [(2, 1, Word.IN_PART), (1, 1, Word.HOLDS), (2, 2, Word.NOT_HERE), (2, math.nan, Word.NOT_HERE)],
)
def test_a_count_is_right_if_it_is_never_more_than_can_be_used(host: float, right: float, word: Word) -> None:
    found = pd.concat([told(0.5, 1, host=host, right=right), told(1.5, 2, host=host, right=right)])
    judged = counts.ruling(found)
    assert judged.verdict.word is word
    answer = unlinked(judged.answer)
    assert answer.startswith("Under a quota of 0.5 CPUs, loops got 0.500 CPUs together, and a program")


def test_counts_without_any_quota_tell_nothing_and_say_why() -> None:
    free = told(math.nan, 2, host=2)
    assert counts.ruling(free, "permission denied").answer == "Cannot be told here: permission denied."
    assert counts.ruling(free).verdict.word is Word.UNTOLD
    assert counts.ruling(pd.DataFrame()).verdict.word is Word.UNTOLD


def test_while_others_use_the_machine_a_count_is_not_surely_too_many() -> None:
    busy = counts.ruling(told(1.5, 1, 0.4, host=2, right=1))
    assert busy.verdict.word is Word.UNTOLD
    assert busy.answer.endswith("None was surely too many.")
    assert counts.ruling(told(1.5, 1, 0.4, right=1)).verdict.word is Word.HOLDS
    assert counts.ruling(told(0.5, 1, 0.4, host=2)).verdict.word is Word.NOT_HERE, "no quota lets so many run"
    assert counts.table(told(1.5, 1, 0.4, host=2)).iloc[0, 1] == "2"


def test_the_table_of_counts_marks_what_is_too_many_and_says_why_one_is_missing() -> None:
    found = counts.table(pd.concat([told(math.nan, 2, host=2, own=math.nan), told(0.5, 1, host=2, own=0.5)]))
    assert found.columns.tolist() == ["", "quota of 0.5 CPUs", "no quota"]
    cells = found.set_index("").T.to_dict("list")
    assert cells["host"] == ["2, more than ran", "2"]
    assert cells["own"] == ["0.5", "no quota"]


@pytest.mark.parametrize(
    ("waiting", "word"),
    [
        ({"least_busy": 0, "reuseport": 8}, Word.IN_PART),
        ({"least_busy": 0, "round_robin": 1}, Word.HOLDS),
        ({"reuseport": 8}, Word.NOT_HERE),
    ],
)
def test_a_slow_request_holds_up_nobody_if_few_wait_by_each_dispatch(
    waiting: dict[str, int], word: Word
) -> None:
    found = held_up.slow_ruling(events(**waiting), "The events of shared are notebook 06's.")
    assert found.verdict.word is word
    assert "in 20 events" in found.answer
    assert found.verdict.trials == len(waiting)


def test_a_few_events_tell_nothing() -> None:
    assert held_up.slow_ruling(events(least_busy=0).head(3)).verdict.word is Word.UNTOLD
    assert held_up.slow_ruling(pd.DataFrame()).verdict.word is Word.UNTOLD


@pytest.mark.parametrize(
    ("inline", "thread", "word"),
    [
        (50.0, 5.0, Word.HOLDS),
        (50.0, 1.2, Word.IN_PART),
        (1.0, 1.0, Word.NOT_HERE),
        (50.0, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5], Word.UNTOLD),
    ],
)
def test_only_a_pool_holds_up_nobody(inline: float, thread: Given, word: Word) -> None:
    found = held_up.pool_ruling(beside(inline, thread))
    assert found.verdict.word is word
    assert "in the event loop" in found.answer
    assert "1.99 times" in unlinked(found.answer), "the pool's, beside the control without a slow request"


@pytest.mark.parametrize(
    ("growth", "word"),
    [
        ((1.2, 1.3, 1.25, 1.2, 1.2, 1.4), Word.HOLDS),
        ((1.02, 1.0, 1.01, 1.03, 1.0, 1.05), Word.NOT_HERE),
        ((1.0, 1.2, 1.2, 1.2, 1.2, 1.2), Word.UNTOLD),
        ((2.0,), Word.UNTOLD),
    ],
)
def test_workers_grow_if_the_largest_is_a_tenth_larger_than_when_it_was_warm(
    growth: tuple[float, ...], word: Word
) -> None:
    found = memory.ruling(looked(*growth))
    assert found.verdict.word is word
    assert unlinked(found.answer).startswith("A worker takes 20.0 MiB (")
    assert "2.00 times" in unlinked(found.answer), "what it takes once is told apart"
    assert "block" not in found.answer + memory.table(looked(*growth), 2).to_string()


def test_memory_that_the_system_does_not_tell_is_said() -> None:
    found = memory.ruling(pd.DataFrame(), "this system does not tell")
    assert found.verdict.word is Word.UNTOLD
    assert found.answer == "Cannot be told here: this system does not tell."


def test_memory_says_how_many_workers_there_is_room_for() -> None:
    cells = memory.table(looked(1.0, 1.0), 2).set_index("")["memory (PSS)"]
    assert cells["workers of this size that the free memory has room for"] == "102"


@pytest.mark.parametrize(
    ("late", "word"),
    [
        ((5, 6, 4, 5, 3, 7), Word.HOLDS),
        ((0, 0, 0, 0, 0, 0), Word.NOT_HERE),
        ((0, 5, 5, 5, 5, 5), Word.UNTOLD),
        ((5, 5), Word.UNTOLD),
    ],
)
def test_a_quota_makes_the_p99_bad_if_it_holds_up_more_than_one_in_a_hundred(
    late: tuple[int, ...], word: Word
) -> None:
    found = throttled.ruling(held(*late))
    assert found.verdict.word is word
    assert "Of a quota of 0.5 CPUs, 40 % (" in unlinked(found.answer)
    assert "stopped the server in 20 % (" in unlinked(found.answer)


def test_what_is_held_up_without_the_quota_too_is_not_its_doing() -> None:
    found = held(5, 6, 4, 5, 3, 7)
    as_late = found["held_up"].groupby(found["block"]).transform("max")
    judged = throttled.ruling(found.assign(held_up=as_late))
    assert judged.verdict.word is Word.NOT_HERE
    assert "0 % (0 % to 0 %) of the requests took 2 times as long" in unlinked(judged.answer)


def test_a_quota_that_is_nearly_used_up_says_nothing_of_one_that_is_not() -> None:
    """A machine that became slower: loops use 72 % of the quota, and two fifths were planned."""
    found = throttled.ruling(held(5, 6, 4, 5, 3, 7, service_cpu_mean_s=0.18))
    assert found.verdict.word is Word.UNTOLD
    assert "72 % (" in unlinked(found.answer)


def test_a_delay_is_beside_one_queue_of_the_same_arrivals_and_cpu_times() -> None:
    """Three come at once to two workers: without a quota the third waits for one loop, so two are as long."""
    requests = pd.DataFrame({"due_s": [0.0] * 3, "end_s": [0.1, 0.1, 0.8], "service_cpu_s": [0.1, 0.1, None]})
    requests = requests.assign(outcome=["ok", "reset", "ok"], trial_id="t")
    found = throttled.with_delays(
        trials({"trial_id": "t"}, workers=2, quota_cpus=0.5, cpu_periods=1), requests
    )
    assert found["delays"].iloc[0].tolist() == pytest.approx([1.0, math.inf, 4.0])
    assert found["held_up"].tolist() == pytest.approx([2 / 3])


def test_where_no_quota_can_be_set_the_verdict_says_why() -> None:
    found = throttled.ruling(pd.DataFrame(), "a quota cannot be set here (permission denied)")
    assert found.verdict.word is Word.UNTOLD
    assert found.answer == "Cannot be told here: a quota cannot be set here (permission denied)."


def every() -> list[Ruling]:
    """Judge every rule by the made trials."""
    three = tails({CENTRAL: 3.0, "workers-2": 3.0, HASHED: 5.0})
    return [
        of_five(1.0, 1.5),
        counts.ruling(told(0.5, 1, host=2)),
        replicas.ruling(three, 2),
        held_up.slow_ruling(events(least_busy=0, reuseport=8)),
        held_up.pool_ruling(beside(50.0, 5.0)),
        memory.ruling(looked(*[1.0] * 6)),
        throttled.ruling(held(*[5] * 6)),
    ]


def test_the_table_and_the_answer_have_every_rule_with_its_verdict() -> None:
    table, text = study.table(every()), study.answer(every())
    assert table["verdict"].tolist() == [one.verdict.word for one in every()]
    assert [one.name for one in every()] == list(study.RULES) == list(parameters().rules)
    assert text.startswith(
        "**Answer.** Of 7 rules, 2 hold as they stand. **Holds here**: A CPU-heavy request"
    )
    assert "nan" not in table.to_string() + text
    assert "](#" not in table.to_string(), "a table says it in words"
    assert all(f"({one.number})" in text for one in every())
    assert len(study.bars(parameters())) == 7


def test_what_was_not_measured_has_no_figure_and_its_verdict_cannot_be_told() -> None:
    none = pd.DataFrame()
    assert workers.figure(none, none, None, 2, 2) is replicas.figure(none, 2) is None
    assert held_up.figure(none, none) is throttled.figure(none) is None
    found = [
        workers.ruling(none, none, 2, 2),
        replicas.ruling(none, 2),
        memory.ruling(none),
        throttled.ruling(none),
    ]
    assert {one.verdict.word for one in found} == {Word.UNTOLD}
    tables = [workers.table(none, none, None, 2), replicas.table(none, 2), counts.table(none)]
    tables += [memory.table(none, 2), held_up.pool_table(none), held_up.slow_table(none)]
    assert all(str(table.iloc[0, 0]).startswith("not measured") for table in tables)
    assert study.measured(none, none).empty


def test_figures_draw_what_was_compared_and_their_titles_say_the_verdict() -> None:
    many = {f"workers-{n}": 2.0 for n in (1, 2, 3, 4, 5)}
    drawn = [
        workers.figure(rates(many), tails(many), memory.after(looked(1.0, 1.1)), 2, 2),
        replicas.figure(tails({CENTRAL: 3.0, "workers-2": 3.0, HASHED: 5.0}), 2),
        held_up.figure(events(least_busy=0, reuseport=8), beside(50.0, 5.0)),
        throttled.figure(held(5, 6, 4, 5, 3, 7)),
    ]
    titles = [title_of(figure) for figure in drawn if figure]
    assert titles == [
        "5 workers do no better than 2",
        "Replicas are as good as workers by some ways to choose, but not by others",
        "In the event loop or in a thread, a slow request holds up the others",
        "A quota far from used up holds up over 1 % of requests",
    ]
    assert all(figure and rendered(figure, "svg") for figure in drawn)


def test_by_theory_only_a_choice_at_random_has_a_longer_tail_than_one_queue() -> None:
    servers = (CENTRAL, "workers-2", HASHED)
    found = with_tail(trials(*({"server": one} for one in servers), workers=2, utilisation=0.6, sent=400))
    one, many = (1 + mdc_wait_quantile(0.99, workers, 0.6) for workers in (1, 2))
    assert replicas.with_theory(found)["theory"].tolist() == pytest.approx([1, 1, one / many])
    assert replicas.with_theory(found.assign(utilisation=1.2))["theory"].isna().all()


def test_a_tail_is_over_that_of_one_ideal_queue_which_has_the_least_overhead() -> None:
    """Loops of .1 s come one at a time: one server takes .01 s on top, one .03 s, and one answers nobody."""
    took_s = {CENTRAL: 0.11, "workers-2": 0.13, HASHED: 0.13}
    rows = [{"trial_id": one, "server": one, "latency_p99_s": took_s[one]} for one in took_s]
    due_s = np.arange(400.0)
    requests = pd.concat(
        pd.DataFrame(
            {"trial_id": one, "due_s": due_s, "end_s": due_s + took_s[one],
             "service_cpu_s": math.nan if one == HASHED else 0.1}
        )
        for one in took_s
    )  # fmt: skip

    class Read:
        def requests(self, trials: pd.DataFrame) -> pd.DataFrame:
            return requests

    found = trials(*rows, workers=2, utilisation=0.5, sent=400)
    beside_it = replicas.beside_one_queue(cast(Run, Read()), found, 2)["over_ideal"]
    assert beside_it.tolist() == pytest.approx([1.0, 0.13 / 0.11, math.nan], nan_ok=True)


def test_the_speed_of_the_machine_speaks_against_nothing_that_is_told_in_own_loops() -> None:
    slower: dict[str, Any] = {"valid": False, "flags": (Flag("loop_ratio", 1.5, 1.15),)}
    found = throttled.ruling(held(5, 6, 4, 5, 3, 7, **slower))
    assert (found.verdict.word, found.verdict.flagged) == (Word.HOLDS, 0)
    assert held_up.pool_ruling(beside(50.0, 5.0, **slower)).verdict.word is Word.UNTOLD
    assert throttled.ruling(held(5, 6, 4, 5, 3, 7, **FLAGGED)).verdict.word is Word.UNTOLD
