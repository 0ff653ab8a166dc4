"""The servers that notebook 07 measures: what they are called, what starts them, and which of them failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from lab.errors import LabError
from lab.servers import peers
from lab.servers.spec import DISPATCHES

Ours = Literal["least-busy", "round-robin", "shared", "reuseport", "offload"]

ALONE, OFFLOAD = "one process", "offload"

PEERS = {one.name: one for one in peers.PEERS}


def is_ours(server: str) -> bool:
    """Say whether a server is one of this project's own."""
    return server not in PEERS


def label(server: str) -> str:
    """Return what figures and tables call a server."""
    if server in PEERS:
        return PEERS[server].label
    return server if server == ALONE else f"ours, {server}"


def factors(server: str, workers: int) -> dict[str, Any]:
    """Return the factors that make a condition's server this one."""
    if server in PEERS:
        one = PEERS[server]
        workers = 1 if one.one_process else workers
        topology = {"topology": "cluster" if workers > 1 else "single", "workers": workers, "peer": server}
        return topology | ({"kernel": "python"} if one.family == "Node" else {})  # it has only its own
    if server in DISPATCHES:
        return {"topology": "cluster", "workers": workers, "dispatch": server}
    if server == OFFLOAD:
        return {"topology": "offload", "workers": workers}
    return {"topology": "single", "workers": 1}


class ServerError(LabError):
    """The `server` of that name did not start, or failed while it was looked at or measured."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(reason)
        self.server = server


@contextmanager
def blamed_on(server: str) -> Iterator[None]:
    """Raise any LabError as that of this server, so that the others can go on."""
    try:
        yield
    except LabError as error:
        raise ServerError(server, str(error)) from error
