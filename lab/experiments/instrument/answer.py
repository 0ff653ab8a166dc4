"""What was found out about the instrument, in words: up to which rate it is believed, and how exact it is."""

import pandas as pd

from lab import units
from lab.experiments.instrument.trials import CLOSED, OPEN, ceilings, tried

_SLOW = 0.1
"""Of the stall: a request that took longer met it."""


def answer(known: pd.DataFrame, lags: pd.DataFrame, stalls: pd.DataFrame) -> str:
    """Say up to which rate the instrument can be believed here, and how near it comes to known answers."""
    limits = "; ".join(
        _limit(str(name), mine) for name, mine in tried(lags).groupby("connections", sort=False)
    )
    off_s, closed_off_s = ((known[loop] - known["known_s"]).abs().max() for loop in ("open_s", "closed_s"))
    return (
        f"**Answer.** On this machine the instrument can be believed {limits}.\n\n"
        f"Of known latencies it is off by {units.seconds(off_s)} at most, "
        f"a closed loop by up to {units.seconds(closed_off_s)}{_doubts(stalls)}. {_counts(lags, stalls)}"
    )


def _limit(connections: str, mine: pd.DataFrame) -> str:
    """Say up to which rate one kind of connections holds, and how often it was tried."""
    if not mine["held"].any():
        lowest = mine.iloc[0]
        rate = units.per_second(lowest["rate_rps"])
        return f"at **no rate** with {connections} (not even {rate}, {_tries(lowest)}: {lowest['reasons']})"
    top = mine[mine["held"] > 0].sort_values("rate_rps").iloc[-1]
    above = mine[mine["rate_rps"] > top["rate_rps"]]
    beyond = "no higher rate was tried"
    if len(above):
        beyond = f"{units.per_second(above.iloc[0]['rate_rps'])}: {_tries(above.iloc[0])}"
    return f"up to **{units.per_second(top['rate_rps'])}** with {connections} ({_tries(top)}; {beyond})"


def _tries(row: "pd.Series[int]") -> str:
    return f"held in {row['held']} of {units.counted(row['tries'], 'trial')}"


def _doubts(stalls: pd.DataFrame) -> str:
    attacks = stalls[stalls["loop"] == OPEN].groupby("rate")["doubts"].first()
    doubted = attacks[attacks != ""]
    if doubted.empty:
        return ""
    of_all = f"{len(doubted)} of {units.counted(len(attacks), 'attack')}"
    return f" (but in {of_all} it did not believe itself: {doubted.iloc[0]})"


def _counts(lags: pd.DataFrame, stalls: pd.DataFrame) -> str:
    stalled = stalls.groupby(["loop", "rate"]).agg(sent=("sent_s", "count"), read=("server_count", "first"))
    differ = int((stalled["sent"] != stalled["read"]).sum() + (~lags["reconciled"]).sum())
    attacks = units.counted(len(stalled) + len(lags), "attack")
    if not differ:
        return f"In all {attacks} the server read as many requests as were sent."
    return f"In {differ} of {attacks} the server did not read as many requests as were sent."


def known_answer_table(known: pd.DataFrame) -> pd.DataFrame:
    """Put the known answers and what was measured in words."""
    return pd.DataFrame(
        {
            "rate": known["rate"].map(units.per_second),
            "latency": known["quantile"],
            "known": known["known_s"].map(units.seconds),
            OPEN: known["open_s"].map(units.seconds),
            CLOSED: known["closed_s"].map(units.seconds),
            "service time": known["service_s"].map(units.seconds),
        }
    )


def stall_title(known: pd.DataFrame) -> str:
    """Say in a figure's title what a closed loop hides."""
    worst = known[(known["quantile"] == "p99") & (known["rate"] == known["rate"].min())].iloc[0]
    true, claimed = units.seconds(worst["known_s"]), units.seconds(worst["closed_s"])
    return f"p99 of this stall is {true}; a closed loop says {claimed}"


def omitted(stalls: pd.DataFrame) -> str:
    """Say how many requests the stall made wait at the lowest rate, and how many of them each loop has."""
    mine = stalls[stalls["rate"] == stalls["rate"].min()]
    slow = (mine["latency_s"] > _SLOW * mine["stall_s"]).groupby(mine["loop"]).sum()
    over = units.seconds(_SLOW * mine["stall_s"].iloc[0])
    counts = f"{units.counted(slow[OPEN], 'request')} of the open loop and {slow[CLOSED]} of the closed one"
    lead = f"At {units.per_second(mine['rate'].iloc[0])}, {counts} took over {over}: "
    if slow[CLOSED] < slow[OPEN]:
        return lead + "the closed loop omits the others, and so its percentiles understate the stall."
    return lead + "at so low a rate nothing falls due while a closed loop is silent, and it omits nothing."


def over_time_title(over_time: pd.DataFrame) -> str:
    """Say in a figure's title what a stall does to an open loop."""
    most, due, ok = over_time["in_flight"].max(), over_time["due"].sum(), over_time["ok"].sum()
    return f"A stall makes {most} requests wait at once; {ok:,} of {due:,} are answered"


def lag_table(lags: pd.DataFrame) -> pd.DataFrame:
    """Put the lags in words, a row per rate: how often it held, and why not."""
    rates = tried(lags)
    p99 = [_range(row["lag_low_s"], row["lag_high_s"]) for _, row in rates.iterrows()]
    return pd.DataFrame(
        {
            "connections": rates["connections"],
            "offered rate": rates["rate_rps"].map(units.per_second),
            "held": [
                f"{row['held']}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{row['tries']}"
                for _, row in rates.iterrows()
            ],
            "send lag, median": rates["lag_p50_s"].map(units.seconds),
            "send lag, p99": p99,
            "CPU of sending one": rates["cpu_per_request_s"].map(units.seconds),
            "counts agree": rates["reconciled"].map({True: "yes", False: "no"}),
            "why one did not hold": rates["reasons"].fillna(""),
        }
    )


def _range(low_s: float, high_s: float) -> str:
    low, high = units.seconds(low_s), units.seconds(high_s)
    return low if low == high else f"{low} to {high}"


def lag_title(lags: pd.DataFrame) -> str:
    """Say in a figure's title where the generator's ceiling is: the lower one, if there are two."""
    held_rps = ceilings(lags)
    top_rps, low_rps = max(held_rps.values()), min(held_rps.values())
    if not top_rps:
        return "The generator is believed at no rate"
    if low_rps:
        return f"The generator is believed up to {units.per_second(low_rps)} at least"
    told = [f"up to {units.per_second(rps)} with {kind}" for kind, rps in held_rps.items() if rps]
    never = [f"at no rate with {kind}" for kind, rps in held_rps.items() if not rps]
    return f"The generator is believed {', '.join(told + never)}"
