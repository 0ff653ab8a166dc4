"""Peers: servers that we did not write, with the article's routes, behind a handle like that of ours.

Their sources are in `sources`, each in its own language.
"""

import difflib
import os
import shutil
from typing import Annotated

from annotated_types import Ge, Le

from lab.checks import A_DAY_S, Before, Count, Seconds, Whole, checked, number
from lab.errors import LabError, UsageError
from lab.hotloop import ITERATIONS, KernelName
from lab.programs import find, node_modules
from lab.servers.foreign import ForeignSpec
from lab.servers.peers.balancers import Balanced
from lab.servers.peers.catalog import PEERS, SOURCES, Peer
from lab.servers.peers.server import WORKERS, PeerServer, new_folder
from lab.servers.spec import ServerSpec

__all__ = ["PEERS", "Peer", "PeerServer", "absent", "peer", "present", "start"]


def peer(name: str) -> Peer:
    """Return the peer of that name. Raises UsageError if there is none."""
    by_name = {one.name: one for one in PEERS}
    if name not in by_name:
        nearest = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(by_name)}"
        raise UsageError(f"there is no peer {name!r}: {hint}")
    return by_name[name]


def present() -> list[Peer]:
    """Return the peers that can run here."""
    return [one for one in PEERS if one.missing is None]


def absent() -> list[Peer]:
    """Return the peers that cannot; `missing` says what brings each."""
    return [one for one in PEERS if one.missing is not None]


@checked
def start(
    name: str,
    *,
    workers: Count = 1,
    iterations: Whole = ITERATIONS,
    kernel: KernelName = "python",
    host: str = "127.0.0.1",
    port: Whole = 0,
    start_timeout_s: Seconds = 30.0,
    drain_s: Annotated[float, Before(number), Ge(0), Le(A_DAY_S)] = 5.0,
) -> PeerServer:
    """Start a peer in the background, and return when all its workers accept.

    iterations, kernel: the loop, as in `ServerSpec`. host, port: where it listens; with port 0, on a free
    one. start_timeout_s: how long it may take to be ready. drain_s: how long it may take to end, once told.

    Raises UsageError for an unknown peer or options that it cannot have; LabError if it is not here, with the
    command that brings it, or if it cannot start.
    """
    chosen = peer(name)
    if command := chosen.missing:
        raise LabError(f"{chosen.label} is not here: {command}")
    if chosen.one_process and workers > 1:
        raise UsageError(f"{name} is one process, got {workers} workers: use {name}-cluster")
    if chosen.family == "Node" and kernel != "python":
        raise UsageError(f"{name} runs the loop in JavaScript, not {kernel}: leave kernel out")
    folder = new_folder()
    try:
        spec = ForeignSpec(
            command=(find(chosen.command[0]) or chosen.command[0], *chosen.command[1:]),
            workers=workers,
            host=host,
            port=port,
            ready_path="/healthz",
            environment={
                **chosen.environment,
                WORKERS: str(folder / "workers"),
                "PM2_HOME": str(folder / "pm2"),
                "SCALING_LAB_NODE_MODULES": str(node_modules()),
                "SCALING_LAB_ITERATIONS": str(iterations),
                "SCALING_LAB_KERNEL": kernel,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")])),
            },
            folder=folder,
            start_timeout_s=start_timeout_s,
            drain_s=drain_s,
        )
        if chosen.config:
            replica = ServerSpec(topology="single", kernel=kernel, iterations=iterations, drain_s=drain_s)
            return Balanced(
                name, spec, folder,
                config=SOURCES / chosen.config, balance=chosen.balance, replica=replica, reload=chosen.reload,
            )  # fmt: skip
        reload = chosen.reload if workers >= chosen.supervised_from else None
        return PeerServer(name, spec, folder, reload)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
