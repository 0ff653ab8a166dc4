"""Where an attack is aimed: a checked URL, the one address it stands for, and the request's bytes.

The name is resolved once, before the attack: what was checked to be on loopback is what is attacked.
"""

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

from lab.errors import LabError, UsageError
from lab.machine import available_cpus

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REACH_WITHIN_S = 5.0
_WITH_BODY = ("POST", "PUT", "PATCH")

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names and values; as pairs, a name may come again."""


@dataclass(frozen=True)
class Target:
    """What a URL says about where a request goes and how it begins."""

    url: str
    addresses: tuple[str, ...]
    port: int
    server_name: str | None  # set for TLS
    host: str
    path: str

    def request(self, method: str, headers: Headers, body: bytes, *, keepalive: bool) -> bytes:
        """Return a request's bytes; a header that is given takes the place of ours.

        Raises UsageError for a header or a method that cannot be sent.
        """
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        for name, value in given:
            if not _TOKEN.fullmatch(name) or not value.isprintable():
                raise UsageError(f"header {name!r} cannot be sent: write a name and printable text")
        if not _TOKEN.fullmatch(method):
            raise UsageError(f"method {method!r} cannot be sent: write GET, POST or the like")
        ours = {"host": self.host, "user-agent": "scaling-lab", "accept": "*/*"}
        ours |= {"connection": "keep-alive" if keepalive else "close"}
        ours |= {"content-length": str(len(body))} if body or method in _WITH_BODY else {}
        for name, _ in given:
            ours.pop(name.lower(), None)
        fields = (f"{name.title()}: {value}" for name, value in [*ours.items(), *given])
        return "\r\n".join([f"{method} {self.path} HTTP/1.1", *fields, "", ""]).encode("utf-8") + body

    def accepting(self) -> str:
        """Return the first address that accepts a connection; it is closed unused.

        Raises LabError if none does.
        """
        reason = "no address"
        for address in self.addresses:
            try:
                socket.create_connection((address, self.port), timeout=_REACH_WITHIN_S).close()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            else:
                return address
        raise LabError(f"cannot reach {self.url}: {reason}; is the server running?")


def check(url: str, *, remote: bool) -> Target:
    """Return what a URL says, and the addresses behind it.

    Raises UsageError if it is malformed, or not on loopback without `remote`; LabError if it is not resolved.
    """
    scheme, host, port, path, netloc = _parse(url)
    addresses = _resolve(host, port)
    if not remote and not all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses):
        raise UsageError(
            f"{host} is not this machine's loopback: add --remote (remote=True) to load it on purpose"
        )
    return Target(url, addresses, port, host if scheme == "https" else None, netloc, path)


def _parse(url: str) -> tuple[str, str, int, str, str]:
    example = "write it as http://127.0.0.1:8000/api/slow"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"malformed URL {url!r} ({error}): {example}") from None
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or parts.username
        or not url.isprintable()
        or " " in url
    ):
        raise UsageError(f"malformed URL {url!r}: {example}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path, parts.netloc


def _resolve(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise LabError(
            f"cannot resolve {host!r}: {getattr(error, 'strerror', error)}; check the URL"
        ) from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


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
