"""The target of an attack: a checked URL, the one address it stands for, and the request's bytes.

The name is resolved once, before the attack: the address checked to be on loopback is the one attacked.
"""

import ipaddress
import re
import socket
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from lab.errors import LabError, UsageError
from lab.load.log import Outcome, classify

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REACH_WITHIN_S = 5.0
_WITH_BODY = ("POST", "PUT", "PATCH")
_ONLY_ONCE = ("host", "content-length", "transfer-encoding")
_EXAMPLE = "write it as http://127.0.0.1:8000/api/slow"

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
"""Names and values; as pairs, a name may repeat."""


@dataclass(frozen=True)
class Target:
    """What a URL says: where a request goes and how it begins."""

    url: str
    addresses: tuple[str, ...]
    port: int
    server_name: str | None  # set for TLS
    host: str
    path: str

    def request(self, method: str, headers: Headers, body: bytes, *, keepalive: bool) -> bytes:
        """Return a request's bytes; a given header replaces ours, with its name as given.

        Raises UsageError for a header or a method that cannot be sent.
        """
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = Counter(name.lower() for name, _ in given)
        for name, value in given:
            if not _TOKEN.fullmatch(name) or not value.isprintable():
                raise UsageError(f"header {name!r} cannot be sent: write a name and printable text")
            if names[name.lower()] > 1 and name.lower() in _ONLY_ONCE:
                raise UsageError(f"header {name} cannot be sent twice: give it once")
        if not _TOKEN.fullmatch(method):
            raise UsageError(f"method {method!r} cannot be sent: write GET, POST or the like")
        body = _framed(body, {name.lower(): value for name, value in given})
        ours = {"Host": self.host, "User-Agent": "scaling-lab", "Accept": "*/*"}
        ours |= {"Connection": "keep-alive" if keepalive else "close"}
        if (body or method in _WITH_BODY) and "transfer-encoding" not in names:
            ours["Content-Length"] = str(len(body))
        fields = [*((name, value) for name, value in ours.items() if name.lower() not in names), *given]
        lines = (f"{name}: {value}" for name, value in fields)
        return "\r\n".join([f"{method} {self.path} HTTP/1.1", *lines, "", ""]).encode() + body

    def accepting(self) -> str:
        """Return the first address that accepts a connection, which is closed unused.

        Raises LabError if none does.
        """
        reason = "no address"
        for address in self.addresses:
            try:
                socket.create_connection((address, self.port), timeout=_REACH_WITHIN_S).close()
            except OSError as error:
                ours = classify(error)[0] == Outcome.CLIENT_ERROR
                advice = "this machine could not connect" if ours else "is the server running?"
                reason = f"{(error.strerror or str(error)).lower()}; {advice}"
            else:
                return address
        raise LabError(f"cannot reach {self.url}: {reason}")


def _framed(body: bytes, given: Mapping[str, str]) -> bytes:
    """Return the body framed as the headers say. Raises UsageError if they contradict that or each other."""
    length, coding = given.get("content-length"), given.get("transfer-encoding")
    if length is not None and coding is not None:
        raise UsageError("Content-Length and Transfer-Encoding cannot both be sent: leave one out")
    if length is not None and length != str(len(body)):
        raise UsageError(
            f"Content-Length must be {len(body)}, the size of the body, got {length}: leave it out"
        )
    if coding is None:
        return body
    if coding.lower() != "chunked":
        raise UsageError(f"Transfer-Encoding must be chunked, got {coding}: leave it out")
    return (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


def check(url: str, *, remote: bool) -> Target:
    """Return what a URL says, and the addresses behind it.

    Raises UsageError if it is malformed, or off loopback without `remote`; LabError if it cannot be resolved.
    """
    parts, port = parse(url)
    host = _ascii(parts.hostname or "")
    addresses = _resolve(host, port)
    if not remote and not all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses):
        raise UsageError(
            f"{host} is not this machine's loopback: add --remote (remote=True) to load it on purpose"
        )
    # ASCII characters are sent as given, even those that a browser would encode.
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=string.printable)
    host = host.partition("%")[0]  # an IPv6 zone means nothing to others
    named = f"[{host}]" if ":" in host else host
    return Target(
        url=url,
        addresses=addresses,
        port=port,
        server_name=host if parts.scheme == "https" else None,
        host=named if port == _PORTS[parts.scheme] else f"{named}:{port}",
        path=path,
    )


def parse(url: str) -> tuple[SplitResult, int]:
    """Return the parts of a URL, and its port. Raises UsageError if it is none that can be attacked."""
    if "@" in re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0]:  # not repeated: it may be a password
        raise UsageError("a URL must not hold a user or password: use --header 'Authorization: ...' instead")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"malformed URL {url!r} ({error}): {_EXAMPLE}") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or not url.isprintable() or " " in url:
        raise UsageError(f"malformed URL {url!r}: {_EXAMPLE}")
    return parts, port or _PORTS[parts.scheme]


def _ascii(host: str) -> str:
    """Return a host as DNS knows it: münchen.de is xn--mnchen-3ya.de."""
    if host.isascii():
        return host
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise UsageError(f"malformed host {host!r} ({error}): {_EXAMPLE}") from None


def _resolve(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise LabError(
            f"cannot resolve {host!r}: {getattr(error, 'strerror', error)}; check the URL"
        ) from None
    return tuple(dict.fromkeys(_here(str(entry[4][0])) for entry in found))


def _here(address: str) -> str:
    """Return loopback for the unspecified address, which servers listen on, and mapped IPv4 as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if not (mapped or ip).is_unspecified:
        return str(mapped or address)
    return "127.0.0.1" if (mapped or ip).version == 4 else "::1"


@dataclass(frozen=True)
class Assignment:
    """What one generator sends, where, and how. The bytes of the request are the same each time."""

    address: str
    port: int
    payload: bytes
    timeout_s: float
    lasts_s: float = 0.0  # the schedule, without its warm-up
    without_body: bool = False  # the method is HEAD
    server_name: str | None = None  # set for TLS
    insecure: bool = False  # do not verify the certificate
    keepalive: bool = False
    connections: int = 10_000  # most idle ones to keep, as in vegeta
    in_flight: int | None = None  # most requests
    progress: bool = False
    realtime: bool = False  # real-time priority, where the system allows it
