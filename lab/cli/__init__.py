"""The `lab` command: finds a subcommand, mostly in its own module, and turns every error into one line."""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from lab.errors import LabError, UsageError
from lab.streams import guard_standard_streams, show_what_can_be_shown, tell, write_out

COMMANDS = (
    *("study", "serve", "attack", "sustained", "size", "plot", "report"),
    *("runs", "compare", "export", "import", "doctor"),
)


class _LazyGroup(click.Group):
    """Import only the subcommand that is asked for: `lab serve` must not wait for pandas."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise UsageError(f"there is no command {cmd_name!r}: choose one of {', '.join(COMMANDS)}")
        if cmd_name not in self.commands:
            self.add_command(importlib.import_module(f"lab.cli.{cmd_name}").command)
        return self.commands[cmd_name]


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="scaling-lab")
def command(debug: bool) -> None:
    """How far does clustering take a CPU-bound web server? Measured on this machine."""


@command.command("report")
@click.argument("run")
@click.option("--single-file", is_flag=True, help="All in one page: the default.")
@click.option(
    "--folder", "in_folder", is_flag=True, help="Pictures, figures and data as files beside the page."
)
def _report(run: str, single_file: bool, in_folder: bool) -> None:
    """Rebuild the report of RUN, and print its path."""
    if single_file and in_folder:
        raise UsageError("a report is one file, or a folder: give --single-file or --folder, not both")
    from lab.report import write_report

    write_out(write_report(run, in_folder=in_folder))


@command.command("export", short_help="Pack a run into one file for a colleague.")
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to; else RUN.zip here.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
def _export(run: str, out: Path | None, force: bool) -> None:
    """Pack what RUN measured into one file for a colleague, and print its path."""
    from lab.study.archive import export_run

    write_out(export_run(run, out, force=force))


@command.command("import", short_help="Take in a run that a colleague exported.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "name", default="", metavar="NAME", help="Give the run another name.")
def _import(file: Path, name: str) -> None:
    """Take in the run that a colleague exported into FILE, and print its name.

    Nothing in FILE is trusted: a run is kept whole, with every table checked, or not at all.
    """
    from lab.study.archive import import_run

    write_out(import_run(file, name))


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0 done, 1 failed or an SLO missed, 2 wrong usage."""
    guard_standard_streams()
    _leave_out_what_takes_seconds()
    show_what_can_be_shown()
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        status = command.main(arguments or ["--help"], prog_name="lab", standalone_mode=False)
    except (click.ClickException, LabError, OSError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        text = error.format_message() if isinstance(error, click.ClickException) else error
        tell(f"lab: {text}")
        sys.exit(2 if isinstance(error, UsageError | click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        tell("lab: interrupted")
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _leave_out_what_takes_seconds() -> None:
    """Do without the grammar of IRIs, which takes seconds to import: no notebook has one to be checked."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # as if it were not installed
