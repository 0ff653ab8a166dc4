"""What a container's CPU counts say: each API under each quota, beside how many loops ran at once."""

import json
import math
import subprocess
import sys
from functools import partial

import pandas as pd

from lab.cpus import affinity_cpus
from lab.errors import LabError, one_line
from lab.experiments.folk_rules.rules import Parameters, Ruling, nothing, verdict
from lab.experiments.less_than_one_core import quota_name
from lab.models.statistics import estimate
from lab.quota import QuotaError, new_quota
from lab.study.run import Run, table_name
from lab.units import digits

_ASK = """
import json, sys
from dataclasses import asdict
from lab.cpus import all_said, host_cpus, run_at_once
times, for_s = int(sys.argv[1]), float(sys.argv[2])
said = [asdict(one) for one in all_said()]
print(json.dumps({"said": said, "ran": [run_at_once(host_cpus(), for_s) for _ in range(times)]}))
"""
"""What `lab doctor` asks and counts, in a process that a quota can hold."""

_SLACK = 0.1
"""A quota may be passed by this much for a moment: that is no other CPU."""

_PATIENCE_S = 60.0


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Return what each API says under each quota, and why a quota cannot be set here, or "".

    A row per quota and API: quota_cpus, nan for none; api; cpus, nan if it does not tell; because; ran, how
    many CPUs the loops got together, one loop for each CPU of the host, in the median.
    """
    if not p.asks("counts"):
        return pd.DataFrame(), ""
    quotas = [None, *(quota for quota in p.quotas if quota < affinity_cpus())]
    found, why_not = [], ""
    for quota in quotas:
        make = partial(asked, quota, p.blocks, p.counted_s)
        try:
            found.append(run.table(table_name("cpu-counts", quota, p.blocks, p.counted_s), make))
        except QuotaError as error:
            why_not = str(error)
            break
    return pd.concat(found, ignore_index=True), why_not


def asked(quota: float | None, times: int, for_s: float) -> pd.DataFrame:
    """Ask every API and count loops in a process under a quota. Raises QuotaError if none can be set."""
    answer = json.loads(_under(quota, [sys.executable, "-P", "-c", _ASK, str(times), str(for_s)], times * for_s))
    rows = pd.DataFrame(answer["said"]).astype({"cpus": float})
    return rows.assign(
        quota_cpus=math.nan if quota is None else quota, ran=estimate(answer["ran"]).value
    )  # fmt: skip


def _under(quota: float | None, command: list[str], lasts_s: float) -> str:
    """Return what a command prints that is held to a quota from its first instruction."""
    held = None if quota is None else new_quota(quota)
    try:
        if held:
            held.limit(True)
        done = subprocess.run(
            [*(held.prefix if held else ()), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=True, timeout=_PATIENCE_S + lasts_s,
        )  # fmt: skip
        return done.stdout
    except subprocess.CalledProcessError as error:
        raise LabError(f"CPUs could not be counted: {one_line(error.stderr)[-200:]}") from None
    except subprocess.TimeoutExpired:
        raise LabError("CPUs could not be counted: it took too long") from None
    finally:
        if held:
            held.close()


def usable(ran: float) -> int:
    """Return how many workers or threads can be kept busy where so many loops ran at once."""
    return max(1, math.ceil(ran - _SLACK))


def ruling(counts: pd.DataFrame, why_not: str) -> Ruling:
    """Judge each API: whether it says more, under any quota, than ran at once, rounded up."""
    limited = counts[counts["quota_cpus"].notna()] if len(counts) else counts
    if limited.empty:
        return nothing("counts", why_not or "no quota was measured that limits anything")
    known = limited.dropna(subset="cpus")
    right = {
        str(api): bool((mine["cpus"] <= mine["ran"].map(usable)).all())
        for api, mine in known.groupby("api", sort=False)
    }
    tightest = known[known["quota_cpus"] == known["quota_cpus"].min()]
    told = ", ".join(f"{row['api']} {row['cpus']:g}" for row in tightest.to_dict("records"))
    quota, ran = float(tightest["quota_cpus"].iloc[0]), float(tightest["ran"].iloc[0])
    under = f"Under a quota of {quota_name(quota)}, loops got {digits(ran)} CPUs together; told were: {told}."
    too_many = [api for api, holds in right.items() if not holds]
    names = f" Too many, under some quota: {', '.join(too_many)}." if too_many else " None was too many."
    return Ruling("counts", under + names, verdict("counts", right.values(), under))


def table(counts: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what each API says under each quota, and mark what is more than can be used."""
    if counts.empty:
        return pd.DataFrame({"": ["not measured"]})
    columns = {}
    for ran_key, mine in counts.fillna({"quota_cpus": math.inf}).groupby("quota_cpus"):
        name = "no quota" if math.isinf(float(str(ran_key))) else f"quota of {quota_name(float(str(ran_key)))}"
        cells = {str(row["api"]): _said(row["cpus"], row["ran"], row["because"]) for row in mine.to_dict("records")}
        columns[name] = cells | {"loops that ran at once": digits(float(mine["ran"].iloc[0]))}
    return pd.DataFrame(columns).rename_axis("").reset_index()


def _said(cpus: float, ran: float, because: str) -> str:
    if math.isnan(cpus):
        return because
    return f"{cpus:g}, more than ran" if cpus > usable(ran) else f"{cpus:g}"
