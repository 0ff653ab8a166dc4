"""`lab report`: rebuild the report of a run from its executed notebooks."""

import click

from lab.report import write_report
from lab.streams import write_out


@click.command("report")
@click.argument("run")
def command(run: str) -> None:
    """Rebuild the report of RUN, and print its path."""
    write_out(write_report(run))
