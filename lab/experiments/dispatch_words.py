"""What the trials of every dispatch say: figures with their titles, a table beside theory, and sentences."""

import pandas as pd
from matplotlib.figure import Figure

from lab import figures, formats
from lab.experiments.claims import Verdict
from lab.experiments.dispatch import busiest, excesses, shares
from lab.experiments.queues import curves, queue_of

_ALIKE = 1.15
"""Percentiles of short trials that are closer than this are not told apart."""

_SIMPLEST_FIRST = ("shared", "reuseport", "round-robin", "least-busy", "pool of processes")
"""Ways for a loop that holds the GIL; the first two need nobody between a client and its worker."""


def theory_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured latency beside what the same arrivals make in each way's queue; new connections only."""
    rows = []
    for _, mine in trials[~trials["keepalive"]].groupby(["place", "arrivals", "load"], sort=False):
        first, row = mine.iloc[0], mine.median(numeric_only=True)
        rows.append(
            {
                "way": first["server"],
                "arrivals": f"{first['arrivals']}, {formats.percent(first['load'])}",
                "utilisation": formats.percent(row["utilisation"]),
                "mean, measured": formats.seconds(row["latency_mean_s"]),
                "mean, theory": formats.seconds(row["mean_theory_s"]),
                "p99, measured": formats.seconds(row["latency_p99_s"]),
                "p99, theory": formats.seconds(row["p99_theory_s"]),
                "p99, ideal": formats.seconds(row["p99_ideal_s"]),
            }
        )
    return pd.DataFrame(rows).sort_values("arrivals", kind="stable", ignore_index=True)


def latency_figure(trials: pd.DataFrame, arrivals: str) -> Figure | None:
    """Draw latency against utilisation for new connections and these arrivals, if they were measured."""
    mine = trials[(trials["arrivals"] == arrivals) & ~trials["keepalive"]]
    if mine.empty:
        return None
    ways = {server: queue_of(server).value for server in mine["server"].unique()}
    theory = curves(list(ways), int(mine["workers"].max()), arrivals)
    return figures.dispatch_latency(mine, theory, ways, _title(mine, arrivals))


def _title(trials: pd.DataFrame, arrivals: str) -> str:
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    head = f"{kind}, {formats.percent(trials['load'].max())} load: p99"
    excess = excesses(trials)
    if len(excess) < 2:
        return f"{head} {formats.digits(trials['p99'].max())} service times"
    best, worst = excess.index[0], excess.index[-1]
    return f"{head} over ideal: {best} {excess[best]:.2f}, {worst} {excess[worst]:.2f}"


def kept_figure(trials: pd.DataFrame, requests: pd.DataFrame) -> Figure | None:
    """Draw who answered, and p99, with new and kept connections, where several processes answered."""
    mine = trials[trials["workers_seen"] > 1]
    if mine.empty:
        return None
    worse = _kept_over_new(mine)
    title = (
        f"Kept connections make p99 {_times(worse.iloc[0])} as long with {worse.index[0]}"
        if len(worse) and worse.iloc[0] > _ALIKE
        else "Who answered, and how long 1 request in 100 waits"
    )
    return figures.dispatch_evenness(shares(requests), mine, int(mine["workers"].max()), title)


def _kept_over_new(top: pd.DataFrame) -> "pd.Series[float]":
    """Return how many times its excess with new connections each way has with kept ones, worst first."""
    excess = top.groupby(["server", "keepalive"])["excess"].median().unstack()
    if not {True, False} <= set(excess):
        return pd.Series(dtype=float)
    return pd.Series(excess[True] / excess[False]).dropna().sort_values(ascending=False)


def answer(trials: pd.DataFrame) -> str:
    """Say which way to choose, and why."""
    top = busiest(trials)
    excess = excesses(top)
    load = formats.percent(top["load"].max())
    if excess.empty:
        return f"**Answer.** Nothing but one process was measured at {load}: there is nothing to choose."
    good = [name for name in excess.index if excess[name] <= _ALIKE * excess.iloc[0]]
    text = (
        f"**Answer.** With random arrivals at a planned utilisation of {load} ({_own(top)} by the workers' "
        f"own service times), p99 is nearest to that of an ideal central queue with **{_listed(good)}** "
        f"({_range(excess[good])} it)"
    )
    if len(rest := excess.drop(good)):
        others = _listed([f"{name} {_times(value)}" for name, value in rest.items()])
        text += f"; farther with {others}"
    return f"{text}. {_on_kept(top)} {_choice(good)}"


def _own(top: pd.DataFrame) -> str:
    own = top["utilisation"]
    return f"{formats.percent(own.min())} to {formats.percent(own.max())}"


def _on_kept(top: pd.DataFrame) -> str:
    """Say what kept connections change."""
    worse = _kept_over_new(top)
    suffer = [f"{name} ({_times(ratio)})" for name, ratio in worse.items() if ratio > _ALIKE]
    if worse.empty:
        return ""
    if not suffer:
        return "Clients that keep their connections open made no p99 longer."
    return f"Clients that keep their connections open make p99 longer with {_listed(suffer)}."


def _choice(good: list[str]) -> str:
    """Say what to take: of those as good as the best, the one with the fewest moving parts."""
    order = [name for name in _SIMPLEST_FIRST if name in good]
    return f"Of those that are as good as the best, **{order[0]}** has the fewest parts." if order else ""


def reading(trials: pd.DataFrame) -> str:
    """Say how far each way is from its own theory, over all trials with new connections."""
    mine = trials[~trials["keepalive"]]
    ratio = (
        (mine["latency_p99_s"] / mine["p99_theory_s"]).groupby(mine["server"], sort=False).median().dropna()
    )
    parts = _listed([f"{name} {formats.digits(value)}" for name, value in ratio.items()])
    return f"Measured p99 over that of the same arrivals in theory, median of a way's trials: {parts}."


def gil(trials: pd.DataFrame) -> str:
    """Say what threads are worth to a loop that holds the GIL, and to one that does not."""
    sentences = []
    for server, mine in trials[trials["topology"].eq("offload") & trials["pool"].eq("thread")].groupby(
        "server"
    ):
        row = busiest(mine)[~busiest(mine)["keepalive"]].median(numeric_only=True)
        sentences.append(
            f"*{server}*: offered {formats.per_second(row['rate'])}, "
            f"{int(row['workers'])} threads answer {formats.per_second(row['throughput_rps'])}, "
            f"p99 {formats.digits(row['p99'])} loop times."
        )
    return " ".join(sentences) or "No pool of threads was measured."


CLAIM = "Taking turns and accepting from one shared socket: the first balances well, the second not always"


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 4: turns balance well, and a shared socket does not always."""
    top = busiest(trials)
    top = top[~top["keepalive"] & top["server"].isin(["round-robin", "shared"])]
    found = top.groupby("server")[["worker_max_share", "excess"]].median()
    if len(found) < 2:
        return Verdict(4, CLAIM)
    fair = 1 / float(top["workers"].iloc[0])
    evidence = "; ".join(
        f"{name}: the busiest worker gave {formats.percent(share)} of the answers "
        f"(fair: {formats.percent(fair)}), p99 was {_times(excess)} the ideal"
        for name, share, excess in zip(found.index, found["worker_max_share"], found["excess"], strict=True)
    )
    turns, shared = found.loc["round-robin"], found.loc["shared"]
    even = turns["worker_max_share"] <= _ALIKE * fair
    worse = (shared > _ALIKE * turns).any()
    return Verdict(4, CLAIM, evidence, bool(even and worse))


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times"


def _range(ratios: "pd.Series[float]") -> str:
    low, high = _times(ratios.min()), _times(ratios.max())
    return low if low == high else f"{ratios.min():.2f} to {high}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
