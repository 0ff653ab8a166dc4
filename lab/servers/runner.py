"""A runner: a process of an `offload` server's pool, which runs the hot loop whenever it is told to."""

import json
from dataclasses import asdict

from lab import hotloop
from lab.servers import process
from lab.servers.pinning import pin
from lab.servers.spec import ServerSpec
from lab.servers.tally import Tally


def main(text: str) -> None:
    """Be the runner that `spawn` started, until it is told to go."""
    arguments = json.loads(text)
    spec = ServerSpec(**arguments["spec"])
    if spec.pin:
        pin(arguments["slot"])
    channel = process.begin(arguments["channel"])
    tally = Tally.adopt(arguments["tally"])
    kernel = hotloop.kernel(spec.kernel)
    channel.send({"event": "ready"})
    while True:
        for message, _ in channel.receive():
            if message["do"] == "drain":
                return
            run = hotloop.run(kernel, spec.iterations)
            tally.add(requests=1, busy_s=run.duration_s)
            channel.send({"event": "done", "run": asdict(run)})
