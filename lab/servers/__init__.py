"""Start, supervise and stop servers in the background: `serve`, and the `Server` that it returns."""

from typing import Any

from lab.errors import UsageError
from lab.servers.handle import Server
from lab.servers.spec import ServerSpec

__all__ = ["Server", "ServerSpec", "serve"]


def serve(topology: str = "cluster", **options: Any) -> Server:
    """Start a fresh server in the background and return when all its workers accept.

    The options are those of `ServerSpec`. It goes on until `stop()`, the end of a `with` block, or the end of
    this process, however that comes. Raises UsageError for options that make no sense, and
    LabError if it cannot start.
    """
    try:
        spec = ServerSpec(topology=topology, **options)
    except TypeError as error:
        raise UsageError(f"no such option of a server: {error}") from None
    return Server(spec)
