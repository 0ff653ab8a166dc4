"""What one generator process is told, besides its due times: a frozen value that crosses a pipe as JSON."""

import json
from dataclasses import asdict, dataclass, replace

from lab.cpus import available_cpus


def generators_with_room() -> int:
    """Return how many generators leave a CPU to the server, where there is more than one."""
    return max(1, available_cpus() - 1)


@dataclass(frozen=True)
class Spec:
    """Where to send what, and how. The bytes of the request are the same each time."""

    address: str
    port: int
    payload: bytes
    timeout_s: float
    lasts_s: float = 0.0  # the schedule, without its warm-up
    without_body: bool = False  # the method is HEAD
    server_name: str | None = None  # set for TLS
    insecure: bool = False  # do not verify the certificate
    keepalive: bool = False
    connections: int = 10_000  # idle ones kept at most, as vegeta
    in_flight: int | None = None  # requests at most
    progress: bool = False
    precedence: bool = False  # go before other processes, where the system allows it

    def shared_by(self, generators: int) -> "list[Spec]":
        """Return one specification for each generator: together they keep to both limits.

        They go before other processes only if that leaves the server a CPU: else they would starve it.
        """
        precedence = generators <= generators_with_room()

        def share(limit: int, k: int) -> int:
            return (limit + k) // generators

        return [
            replace(
                self,
                connections=share(self.connections, k),
                in_flight=None if self.in_flight is None else share(self.in_flight, k),
                precedence=precedence,
            )
            for k in range(generators)
        ]

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps({**asdict(self), "payload": self.payload.decode("latin-1")})

    @staticmethod
    def from_json(line: str) -> "Spec":
        """Return the specification that `to_json` wrote."""
        fields = json.loads(line)
        return Spec(**{**fields, "payload": fields["payload"].encode("latin-1")})
