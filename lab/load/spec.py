"""What one generator process is told, besides its due times: a frozen value that crosses a pipe as JSON."""

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Spec:
    """Where to send what, and how. The bytes of the request are the same each time."""

    address: str
    port: int
    payload: bytes
    timeout_s: float
    without_body: bool = False  # the method is HEAD
    server_name: str | None = None  # set for TLS
    insecure: bool = False  # do not verify the certificate
    keepalive: bool = False
    connections: int = 10_000  # idle ones kept at most, as vegeta
    in_flight: int | None = None  # requests at most
    progress: bool = False

    def shared_by(self, generators: int) -> "list[Spec]":
        """Return one specification for each generator: together they keep to the in-flight limit."""
        if self.in_flight is None:
            return [self] * generators
        return [replace(self, in_flight=(self.in_flight + k) // generators) for k in range(generators)]

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps({**asdict(self), "payload": self.payload.decode("latin-1")})

    @staticmethod
    def from_json(line: str) -> "Spec":
        """Return the specification that `to_json` wrote."""
        fields = json.loads(line)
        return Spec(**{**fields, "payload": fields["payload"].encode("latin-1")})
