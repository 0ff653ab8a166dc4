"""`lab sustained`: its text, its JSON and its exit statuses."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lab.cli import main
from lab.flags import Flag
from lab.load.report import Slo
from lab.study.rate_search import RateTrial
from lab.study.sustained import Interrupted, Sustained

URL = "http://127.0.0.1:1/api/slow"
LATENCY_S = {"p50": 0.02, "p99": 0.03}
SLOS = Slo.parse_all(["p99=250ms"])


def trial(rate: float, *missed: str, flags: tuple[Flag, ...] = ()) -> RateTrial:
    good = not missed and not flags
    return RateTrial(
        rate, round(3 * rate), good, missed, flags, min(rate, 156.0), 0.0125, 0.0125, 0.97, rate / 156, 0.02,
        LATENCY_S, {"cpu_s": 0.5, "send_lag_p99_s": 0.001},
    )  # fmt: skip


TRIALS = (trial(312.0, "p99", "backlog"), trial(157.0, "backlog"), trial(150.0), trial(150.0))


def by_rates(
    lower_rps: float | None, upper_rps: float | None, reason: str = "", *trials: RateTrial
) -> Sustained:
    return Sustained.by_rates(URL, SLOS, "constant", (lower_rps, upper_rps, reason), trials or TRIALS)


FOUND = by_rates(150.0, 157.0)
SHARES = replace(
    FOUND, shares=(0.93, 0.97), limit_rps=158.0,
    trials=tuple(replace(one, steady_s={"p99": 0.8 * one.rate / 312}) for one in TRIALS),
)  # fmt: skip


def said(found: Sustained, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    asked: dict[str, Any] = {}

    def answered(url: str, **more: Any) -> Sustained:
        asked.update(more, url=url)
        for number, each in enumerate(found.trials, 1):
            more["on_trial"](each, found.trials[:number])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.cli.sustained.sustained", answered)
        with pytest.raises(SystemExit) as left:
            main(["sustained", URL, *options])
    assert asked["url"] == URL
    out, err = capsys.readouterr()
    return int(str(left.value.code)), out, err


def test_it_says_the_bounds_first_and_then_every_trial(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(FOUND, capsys)
    assert status == 0
    first, *_ = out.splitlines()
    assert first == "Sustained  147/s to 160/s (constant arrivals)", "2 % further apart on each side"
    assert "Own limit  unknown: the server does not say its service times and its workers" in out
    assert "Latency" not in out
    assert "4 trials, 0 flagged" in out
    assert out.count("held") == 2
    assert "Beware" not in out
    assert out.count("missed: ") == 2
    assert "trial 4: 150/s held" in err


def test_a_share_of_the_own_limit_is_said_with_what_counted_beside_what_clients_got(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = said(SHARES, capsys)
    assert status == 0
    assert "Own limit  about 158/s; sustained: 93 % to 97 % of it" in out
    assert (
        "Latency    counts as if the machine had kept its speed (steady); beside it is what clients got"
        in out
    )
    head, first, *_ = out.splitlines()[-5:]
    assert head.split() == ["rate", "answered", "of", "own", "limit", "steady", "p99", "p99"]
    assert first.split() == [
        "312/s", "156/s", "200", "%", "800", "ms", "30.0", "ms", "missed:", "p99,", "latency", "grows",
    ]  # fmt: skip
    assert max(map(len, out.splitlines())) <= 100
    changed = replace(SHARES, consistent=False)
    assert "the machine's speed changed: trust the share of the own limit" in said(changed, capsys)[1]


def test_each_objective_has_its_latency_beside_each_trial(capsys: pytest.CaptureFixture[str]) -> None:
    slos = tuple(Slo.parse_all(["p50=20ms", "p99=250ms", "success=99%"]))
    _, out, _ = said(replace(FOUND, slos=slos), capsys)
    assert out.splitlines()[-5].split() == ["rate", "answered", "of", "own", "limit", "p50", "p99"]
    _, out, _ = said(replace(FOUND, slos=tuple(Slo.parse_all(["success=99%"]))), capsys)
    assert out.splitlines()[-5].split() == ["rate", "answered", "of", "own", "limit", "p99"]


def test_too_few_requests_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = by_rates(50.0, 52.0, "", trial(50.0), trial(52.0, "p99"))
    _, out, _ = said(found, capsys)
    assert found.requests_wanting == 299 - 150
    assert "Beware     trials at the lower bound lack 149 requests to tell their percentiles" in out
    assert ": use --duration 7s" in out, "299 requests at 49/s"


def test_json_is_what_the_contract_says(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(SHARES, capsys, "--format", "json")
    told = json.loads(out)
    assert status == 0
    assert (told["held_rps"], told["failed_rps"], told["reason"]) == (150, 157, None)
    assert told["lower_rps"] == pytest.approx(150 * 0.98)
    assert told["upper_rps"] == pytest.approx(157 * 1.02)
    assert (told["share_of_limit"], told["limit_rps"]) == (0.93, 158)
    assert told["utilisation"] == [0.93, 0.97]
    assert told["consistent"] is True
    assert told["steady"] is True
    assert told["generator"] == {"cpu_s": 2.0, "send_lag_p99_s": 0.001}
    assert told["slo"][1] == {"name": "success", "limit": 0.99, "implied": True}
    assert told["trials"][0]["missed"] == ["p99", "backlog"]
    assert (told["trials"][1]["steady_s"], told["trials"][1]["latency_s"]) == (
        {"p99": 0.8 * 157 / 312},
        LATENCY_S,
    )
    assert json.loads(said(FOUND, capsys, "--format", "json")[1])["share_of_limit"] is None


@pytest.mark.parametrize(
    ("lower_rps", "upper_rps", "reason", "status", "first"),
    [
        (None, 10.0, "even 10.0/s is too much: p99 is 1.00 s", 1, "less than 10.1/s"),
        (None, None, "the bounds did not settle", 1, "none found"),
        (50.0, None, "the search ended at 50.0/s, which is sustained", 0, "at least 49.5/s"),
    ],
)
def test_a_bound_that_is_missing_is_explained(
    lower_rps: float | None,
    upper_rps: float | None,
    reason: str,
    status: int,
    first: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = by_rates(lower_rps, upper_rps, reason)
    left, out, err = said(found, capsys)
    assert left == status
    assert out.startswith(f"Sustained  {first} (")
    assert ("no share of it, as no rate was sustained" in out) == (lower_rps is None)
    assert err.splitlines()[-1] == f"lab: {reason}"


def test_what_is_not_believed_or_contradictory_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    spoiled = trial(400.0, flags=(Flag("send_lag", 0.5, 0.01),))
    found = by_rates(150.0, 157.0, "", *TRIALS, spoiled, trial(100.0, "p99"))
    _, out, _ = said(found, capsys)
    assert "6 trials, 1 flagged; they contradict each other" in out
    assert "flagged: the generator fell behind" in out


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_interrupted_search_hands_over_what_it_has(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = replace(FOUND, reason="interrupted after 4 trials")

    def interrupted(url: str, **_: Any) -> Sustained:
        raise Interrupted(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.cli.sustained.sustained", interrupted)
        with pytest.raises(SystemExit, match="130"):
            main(["sustained", URL, "--format", form])
    out, err = capsys.readouterr()
    assert "150" in out
    said = [line for line in err.splitlines() if line]
    assert said == ["lab: interrupted after 4 trials", "lab: interrupted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slo", "p99=250"), "say the unit"),
        (("--precision", "0"), "precision must be above 0"),
        (("--header", "nonsense"), "malformed header"),
        (("--max-rate", "fast"), "malformed rate"),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sustained", URL, *options])
    _, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["sustained", URL])
    _, err = capsys.readouterr()
    assert err.startswith("lab: ")
    assert err.count("\n") == 1
