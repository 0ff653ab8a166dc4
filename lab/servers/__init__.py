"""Start, supervise and stop servers in the background: `serve`, and the `Server` that it returns."""

from typing import Any

from lab.servers import handle
from lab.servers.handle import Server
from lab.servers.spec import ServerSpec

__all__ = ["Server", "ServerSpec", "serve"]


def serve(topology: str = "cluster", **options: Any) -> Server:
    """Start a fresh server in the background and return when all its workers accept.

    The options are those of `ServerSpec`. The server runs until `stop()`, the end of a `with` block, the next
    run of the notebook cell that started it, or the end of this process, however it ends.

    Raises UsageError for invalid options, LabError if it cannot start.
    """
    spec = ServerSpec(**{"topology": topology, **options})
    handle.stop_earlier_run()
    server = Server(spec)
    handle.remember(server)
    return server
