"""What a container's CPU counts say: each API under each quota, beside how many loops ran at once."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from lab.cpus import host_cpus
from lab.errors import LabError, one_line
from lab.experiments.folk_rules.rules import Parameters, Ruling, nothing, verdict
from lab.experiments.folk_rules.trials import limits
from lab.experiments.less_than_one_core.trials import quota_name
from lab.quota import QuotaError, new_quota
from lab.study.estimates import linked
from lab.study.run import Run, table_name
from lab.study.stability import MOST_OTHERS_CPU, between, snapshot
from lab.units import digits

_ASK = """
import json, sys
from dataclasses import asdict
from lab.cpus import all_said, run_at_once
said = [asdict(one) for one in all_said()]
print(json.dumps({"said": said, "ran": run_at_once(int(sys.argv[1]), float(sys.argv[2]))}))
"""
"""What `lab doctor` asks and counts, in a process that a quota can hold."""

COUNTED_S = 0.6
"""How long loops run to see how many do so at once."""

_THE_QUOTA = "cgroup quota"
"""What `lab.cpus` calls the file of the quota itself."""

_SLACK = 0.05
"""So little of a CPU is no other CPU."""

_PATIENCE_S = 60.0


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Return what each API says under each quota, and why a quota cannot be set here, or ""."""
    if not p.asks("counts"):
        return pd.DataFrame(), ""
    quotas = [None, *filter(limits, p.quotas)]
    found, why_not = [], ""
    for quota in quotas:
        try:
            name = table_name("cpu-counts", quota)
            found.append(run.table(name, partial(asked, quota)))
        except QuotaError as error:
            why_not = str(error)
            break
    return pd.concat(found, ignore_index=True), why_not


def asked(quota: float | None, for_s: float = COUNTED_S) -> pd.DataFrame:
    """Ask every API in a process under a quota, and count there how many endless loops run at once.

    A row per API: quota_cpus, nan for none; api; cpus, nan if it does not tell; because; ran, the CPUs that
    loops got together, of which there are more than the quota allows, or one for each CPU of the host;
    usable, how many of them the quota lets be kept busy, or all CPUs of the host; others_cpu, the share of
    all CPUs that other processes used meanwhile. Raises QuotaError if none can be set.
    """
    loops = host_cpus() if quota is None else math.ceil(quota) + 1
    before = snapshot()
    answer = json.loads(_under(quota, [sys.executable, "-P", "-c", _ASK, str(loops), str(for_s)]))
    others_cpu, ran = between(before, snapshot()).others_cpu, float(answer["ran"])
    steadily = loops if quota is None else min(ran, quota)  # the rest is what was left of the first period
    return (
        pd.DataFrame(answer["said"])
        .astype({"cpus": float})
        .assign(
            quota_cpus=math.nan if quota is None else quota,
            ran=ran,
            usable=max(1, math.ceil(steadily - _SLACK)),
            others_cpu=others_cpu,
        )
    )


def _under(quota: float | None, command: list[str]) -> str:
    """Return what a command prints that is held to a quota from its first instruction."""
    held = None if quota is None else new_quota(quota)
    try:
        if held:
            held.limit(True)
        done = subprocess.run(
            [*(held.prefix if held else ()), *command], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=True, timeout=_PATIENCE_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise LabError(f"CPUs could not be counted: {one_line(error.stderr)[-200:]}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"CPUs could not be counted within {_PATIENCE_S:g} s") from None
    finally:
        if held:
            held.close()
    return done.stdout


def ruling(counts: pd.DataFrame, why_not: str = "") -> Ruling:
    """Judge each API: whether it says more, under any quota, than loops that can be kept busy.

    The file of the quota itself, which is right, is not judged. While others use the machine, few loops run:
    then it cannot be told whether more is too much.
    """
    known = counts.dropna(subset=["quota_cpus", "cpus"]) if len(counts) else counts
    if known.empty:
        return nothing("counts", why_not or "no quota was measured that limits anything here")
    asked_for = known[known["api"] != _THE_QUOTA]  # which is right by itself
    right = {str(api): _is_right(mine) for api, mine in asked_for.groupby("api", sort=False)}
    tightest = of_the_tightest(counts).to_dict("records")
    quota = quota_name(tightest[0]["quota_cpus"])
    told = {row["api"]: linked(f"{row['cpus']:g}", TOLD, api=row["api"], quota=quota) for row in tightest}
    ran = linked(digits(tightest[0]["ran"]), RAN, quota=quota)
    said = ", ".join(f"{cpus} by {api}" for api, cpus in told.items())
    evidence = f"Under a quota of {quota}, loops got {ran} CPUs together, and a program was told {said}."
    wrong = [api for api, holds in right.items() if holds is False]
    names = f"Too many, under some quota: {', '.join(wrong)}." if wrong else "None was surely too many."
    most = max(tightest, key=lambda row: row["cpus"])["api"]
    return Ruling(
        "counts", f"{evidence} {names}", verdict("counts", right.values(), evidence),
        number=f"under {quota}, up to {told[most]} told, and {ran} got",
    )  # fmt: skip


RAN, TOLD = "got by loops under a quota", "told to a program under a quota"


def of_the_tightest(counts: pd.DataFrame) -> pd.DataFrame:
    """Return what the APIs that tell a number say under the smallest quota; nothing without any quota."""
    known: pd.DataFrame = counts.dropna(subset=["quota_cpus", "cpus"])
    tightest: pd.DataFrame = known[known["quota_cpus"] == known["quota_cpus"].min()]
    return tightest


def _is_right(said: pd.DataFrame) -> bool | None:
    more = said[said["cpus"] > said["usable"]]
    return True if more.empty else False if any(map(_surely, more.to_dict("records"))) else None


def _surely(more: Mapping[Any, Any]) -> bool:
    """Say whether more than ran is more than can: others used little, or the quota lets no more run."""
    return bool(more["others_cpu"] <= MOST_OTHERS_CPU or more["cpus"] >= more["quota_cpus"] + 1)


def table(counts: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what each API says under each quota, and mark what is more than can be used."""
    if counts.empty:
        return pd.DataFrame({"": ["not measured"]})
    columns = {}
    for limit, mine in counts.fillna({"quota_cpus": math.inf}).groupby("quota_cpus"):
        quota = float(str(limit))
        cells = {row["api"]: _said(row) for row in mine.to_dict("records")}
        ran = {"loops that ran at once": digits(float(mine["ran"].iloc[0]))}
        columns["no quota" if math.isinf(quota) else f"quota of {quota_name(quota)}"] = cells | ran
    return pd.DataFrame(columns).rename_axis("").reset_index()


def _said(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["cpus"]):
        return str(row["because"])
    more = row["cpus"] > row["usable"] and _surely(row)
    return f"{row['cpus']:g}, more than ran" if more else f"{row['cpus']:g}"
