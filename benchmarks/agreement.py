"""Whether two runs agree: `python benchmarks/agreement.py RUN RUN` compares every number that both state.

Make both with `lab study` on one machine, an hour apart. It exits with 1 if their ratios and shares do not
agree. What has a unit depends on the machine's speed, so it may be apart and both be true.
"""

import sys

from lab.errors import LabError
from lab.experiments.summary import estimates, open_for_reading
from lab.study.estimates import Agreement, agreement


def report(found: Agreement) -> str:
    """Write how two runs agree, and by name what cannot be true in both."""
    counts = found.counts.rename(
        columns={"both": "intervals in both", "held": "hold the other's value, of twice"}
    )
    told = [counts.to_string(index=False)]
    for row in found.apart.to_dict("records"):
        name = f"{row['experiment']}: {row['quantity']} ({row['factors']})"
        spans = (f"{row[f'low_{run}']:.4g} to {row[f'high_{run}']:.4g}" for run in ("one", "other"))
        apart = "at another speed" if row["unit"] else "apart"
        told.append(f"{apart}: {name}: {' and '.join(spans)} {row['unit']}".rstrip())
    return "\n".join([*told, *(found.misses() or ["the runs agree"])])


def main(arguments: list[str]) -> int:
    """Compare the two runs that are named."""
    if len(arguments) != 2:
        print("name two runs: `lab runs` lists them", file=sys.stderr)
        return 2
    try:
        one, other = (estimates(open_for_reading(run_id)) for run_id in arguments)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    found = agreement(one, other)
    print(report(found))
    return 1 if found.misses() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
