"""`lab serve`: a server in the foreground, until SIGINT or SIGTERM, or until the terminal is gone."""

import json
import os
import signal
import sys
from typing import Any

import click

from lab import processes
from lab.hotloop import ITERATIONS, KERNELS
from lab.servers import Server, ServerSpec
from lab.servers.spec import DISPATCHES, POOLS, TOPOLOGIES
from lab.streams import write_out

_STDIN = 0
_TO_RELAY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


def _one_of(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}."


@click.command("serve", short_help="Run a server of one process or many, until told to stop.")
@click.option("--topology", default="cluster", show_default=True, help=_one_of(TOPOLOGIES))
@click.option("--workers", type=int, help="Processes, or threads; by default the CPUs available here.")
@click.option("--dispatch", default="round-robin", show_default=True, help=_one_of(DISPATCHES))
@click.option("--bound", default=1, show_default=True, help="Requests that a worker of least-busy may hold.")
@click.option("--kernel", default="python", show_default=True, help=_one_of(KERNELS))
@click.option("--iterations", default=ITERATIONS, show_default=True, help="Where the hot loop starts.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to listen on.")
@click.option("--port", default=0, show_default=True, help="0 for any free port.")
@click.option("--keepalive/--no-keepalive", default=None, help="Whether a connection outlives its answer.")
@click.option("--pool", default="process", show_default=True, help=f"Behind offload: {_one_of(POOLS)}")
@click.option("--pin", is_flag=True, help="Give each worker a CPU of its own.")
@click.option(
    "--hang-timeout", "hang_timeout_s", type=float, help="End a worker blocked for this many seconds."
)
@click.option("--recycle-after", type=int, help="Replace a worker after about this many requests.")
@click.option(
    "--drain", "drain_s", default=5.0, show_default=True, help="Seconds to finish when told to stop."
)
@click.option("--unlimited", is_flag=True, help="Allow any number of workers.")
def command(**options: Any) -> None:
    """Serve until SIGINT or SIGTERM. A line of JSON on stdout says when it accepts; the rest is on stderr.

    TERM or INT drains and stops, a second one stops at once; HUP recycles the workers; TTIN adds a worker and
    TTOU removes one. Send them to this process or to the pid in that line.
    """
    spec = ServerSpec(**options)
    server: Server | None = None

    def relay(number: int, frame: object) -> None:
        if server is not None:
            server.send_signal(number)
        elif number in (signal.SIGTERM, signal.SIGINT):
            raise KeyboardInterrupt

    for number in _TO_RELAY:
        signal.signal(number, relay)
    try:
        server = Server(spec, log=sys.stderr)
    except KeyboardInterrupt:
        return
    with server:
        if not processes.is_hung_up(
            _STDIN
        ):  # one closed from the start means nothing: some job runners do that
            processes.on_hang_up(_STDIN, lambda: os.kill(os.getpid(), signal.SIGTERM))
        ready = {"event": "ready", "url": server.url, "pid": server.pid, "workers": server.workers}
        write_out(json.dumps(ready))
        server.wait()
