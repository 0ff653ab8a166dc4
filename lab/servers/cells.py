"""A notebook cell that is run again starts its servers again: those of its earlier run are stopped first."""

import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from lab.servers.handle import Server

_runs: dict[str, tuple[str, "WeakSet[Server]"]] = {}
"""For each cell, its last run and the servers that this one started."""


def stop_earlier_run() -> None:
    """Stop what an earlier run of the cell that now runs has started, so that it may have the same port."""
    cell, run = _current()
    earlier, servers = _runs.get(cell, (run, WeakSet()))
    if earlier != run:
        for server in list(servers):
            server.stop()


def remember(server: "Server") -> None:
    """Note which run of which cell has started a server."""
    cell, run = _current()
    last, servers = _runs.get(cell, (run, WeakSet()))
    _runs[cell] = run, (servers if last == run else WeakSet())
    _runs[cell][1].add(server)


def _current() -> tuple[str, str]:
    """Return the cell that runs and this run of it: JupyterLab tells a cell's id, others just its code."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = ipython and ipython.get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = request.get("metadata", {}).get("cellId") or request.get("content", {}).get("code", "")
    return str(cell), str(request.get("header", {}).get("msg_id", ""))
