"""What the trials of every dispatch look like: figures with their titles, and a table beside theory."""

import pandas as pd
from matplotlib.figure import Figure

from lab import figures, formats
from lab.experiments.dispatch import KEPT, NEW, busiest, spread_over_processes, steady
from lab.experiments.dispatch_ranking import spread, standings
from lab.experiments.dispatch_words import bar_is, listed, over_theory, own_utilisation, tail_name
from lab.experiments.queues import curves, queue_of


def theory_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured latency beside what the same arrivals make in each way's queue; new connections only."""
    name, rows = tail_name(trials), []
    of_new = trials[~trials["keepalive"]].sort_values(
        ["arrivals", "load", "place"], ascending=[False, True, True]
    )
    for _, mine in of_new.groupby(["arrivals", "load", "place"], sort=False):
        first, row = mine.iloc[0], mine.median(numeric_only=True)
        rows.append(
            {
                "way": first["server"],
                "arrivals": first["arrivals"],
                "planned": formats.percent(first["load"]),
                "trials": len(mine),
                "utilisation": formats.percent(row["utilisation"]),
                "mean, measured": formats.seconds(row["latency_mean_s"]),
                "mean, theory": formats.seconds(row["mean_theory_s"]),
                "mean, ideal": formats.seconds(row["mean_ideal_s"]),
                f"{name}, measured": formats.seconds(row["tail_s"]),
                f"{name}, theory": formats.seconds(row["tail_theory_s"]),
            }
        )
    return pd.DataFrame(rows)


def latency_figure(trials: pd.DataFrame, arrivals: str) -> Figure | None:
    """Draw latency against utilisation for new connections and these arrivals, if they were measured."""
    mine = trials[(trials["arrivals"] == arrivals) & ~trials["keepalive"]]
    if mine.empty:
        return None
    ways = {server: queue_of(server).value for server in mine["server"].unique()}
    theory = curves(list(ways), int(mine["workers"].max()), arrivals, float(mine["tail_share"].iloc[0]))
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    near = over_theory(mine)
    title = f"{kind}: mean latency is {_span(near)} theory's" if len(near) else kind
    return figures.dispatch_latency(mine, theory, ways, tail_name(mine), title)


def ranking_figure(trials: pd.DataFrame, requests: pd.DataFrame) -> Figure | None:
    """Draw who answered, and mean latency over ideal, at the highest Poisson load; `requests` are theirs."""
    top = spread_over_processes(busiest(trials))
    calm = steady(top)
    if calm.empty:
        return None
    rows = [
        {"server": server, "connections": connections, **vars(spread(mine))}
        for (server, connections), mine in calm.groupby(["server", "connections"], sort=False)["excess"]
    ]
    share = shares(requests[requests["trial_id"].isin(calm["trial_id"])])
    worse = [s.way for s in standings(trials) if s.over_best.exceeds]
    title = (
        f"Random arrivals: requests take longer with {listed(worse)}"
        if worse
        else "Random arrivals: who answered, and how much longer requests take than ideal"
    )
    return figures.dispatch_evenness(share, calm, pd.DataFrame(rows), int(calm["workers"].max()), title)


def ranking_caption(trials: pd.DataFrame) -> str:
    """Say what the figure of `ranking_figure` draws: which trials, and what its bars are."""
    text = (
        "Each worker's share of the answers, and mean latency over that of one ideal queue; random arrivals"
    )
    if not (found := standings(trials)):
        return f"{text}."
    return f"{text}, utilisation {own_utilisation(trials)}. Pale: trials; bar: {bar_is(found)}."


def shares(requests: pd.DataFrame) -> pd.DataFrame:
    """Return what share of a trial's answers each worker gave, busiest first.

    Columns server, connections, rank (1 is the busiest) and share, the median over trials.
    """
    answered = requests[requests["worker"].notna()]
    of_trial = ["server", "keepalive", "trial_id"]
    share = answered.groupby(of_trial)["worker"].value_counts(normalize=True).rename("share").reset_index()
    share["rank"] = share.groupby(of_trial)["share"].rank(ascending=False, method="first").astype(int)
    share["connections"] = share["keepalive"].map({True: KEPT, False: NEW})
    return pd.DataFrame(share.groupby(["server", "connections", "rank"])["share"].median()).reset_index()


def _span(ratios: "pd.Series[float]") -> str:
    low, high = f"{ratios.min():.2f}", f"{ratios.max():.2f}"
    return f"{low} times" if low == high else f"{low} to {high} times"
