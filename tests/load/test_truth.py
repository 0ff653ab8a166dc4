"""Known answers: a server that stalls leaves a sawtooth of latencies, which a truthful generator shows."""

import asyncio
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.load_servers import answer, greet, serving, stalling

from lab.cli import main
from lab.errors import UsageError
from lab.load.attack import attack
from lab.load.target import Headers, check

STALL_S = 0.6
SLACK_S = 0.3
"""Half a tooth: far more than any delay of a busy machine, far less than what coordinated omission hides."""


def sawtooth(rate: float, planned: int, at: int) -> list[float]:
    """Return the latencies when request `at` and all that follow wait until its due time + STALL_S."""
    over_s = at / rate + STALL_S
    return [max(0.0, over_s - k / rate) if k >= at else 0.0 for k in range(planned)]


def assert_sawtooth(summary: dict[str, float | dict[str, float]], rate: float) -> None:
    """Check all quantiles against the known answer: none may be under it, and none far over it."""
    expected_s = sawtooth(rate, int(rate), at=5)
    latency_s, service_s = summary["latency_s"], summary["service_s"]
    assert isinstance(latency_s, dict)
    assert isinstance(service_s, dict)
    for percentile in (50, 90, 95, 99):
        least_s = float(np.percentile(expected_s, percentile))
        assert least_s - 1e-9 <= latency_s[f"p{percentile}"] <= least_s + SLACK_S
    assert max(expected_s) <= latency_s["max"] <= max(expected_s) + SLACK_S
    assert service_s["max"] == pytest.approx(0.001)  # which is all that the server itself noticed


@pytest.mark.parametrize("rate", [40, 250])
def test_a_stall_is_a_sawtooth(rate: float) -> None:
    with serving(stalling(5, STALL_S)) as server:
        result = attack(server.url, rate=rate, duration=1)
    assert_sawtooth(result.summary, rate)


@pytest.mark.parametrize(
    "options", [{"in_flight": 1}, {"keepalive": True, "generators": 3}, {"in_flight": 2, "keepalive": True}]
)
def test_no_option_hides_the_stall(options: dict[str, int]) -> None:
    with serving(stalling(5, STALL_S)) as server:
        result = attack(server.url, rate=100, duration=1, **options)  # type: ignore[arg-type]
    assert_sawtooth(result.summary, 100)
    assert result.summary["outcomes"]["ok"] == 100


def test_the_command_line_shows_the_same_sawtooth(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(stalling(5, STALL_S)) as server, pytest.raises(SystemExit, match="0"):
        main(["attack", server.url, "--rate", "100", "--duration", "1s", "--format", "json"])
    assert_sawtooth(json.loads(capsys.readouterr().out), 100)


def test_an_in_flight_limit_is_kept_and_counts_into_latency() -> None:
    with serving(stalling(0, STALL_S)) as server:
        result = attack(server.url, rate=50, duration=0.2, in_flight=3)
    assert result.summary["generator"]["most_in_flight"] == 3
    assert result.summary["generator"]["waited"] == 7
    assert result.summary["send_lag_s"]["max"] >= STALL_S - 0.06 - 1e-9


def test_the_rate_and_the_count_are_exact() -> None:
    with serving(greet) as server:
        result = attack(server.url, rate=70, duration="100ms")
    assert result.summary["rate"] == 70
    assert result.summary["planned"] == result.summary["requests"] == 7
    assert result.requests["due_s"].tolist() == [k / 70 for k in range(7)]


def test_nothing_is_sent_before_it_is_due() -> None:
    with serving(greet) as server:
        requests = attack(server.url, rate=200, duration=0.5, generators=2).requests
    assert (requests["sent_s"] >= requests["due_s"]).all()
    assert (requests["end_s"] >= requests["sent_s"]).all()


def test_every_request_reaches_the_server_once() -> None:
    with serving(greet) as server:
        result = attack(server.url + "x?y=1", rate=100, duration=0.3, generators=2, warmup=0.1)
        assert len(server.requests) == 40
    assert len(result.requests) == 30
    assert len(result.warmup) == 10
    assert (result.warmup["due_s"] < 0).all()
    assert all(request.startswith(b"GET /x?y=1 HTTP/1.1\r\n") for request in server.requests)


def test_many_generators_offer_the_schedule_of_one() -> None:
    with serving(greet) as server:
        one, three = (
            attack(server.url, rate=100, duration=0.3, arrivals="poisson", seed=3, generators=n)
            for n in (1, 3)
        )
    assert one.requests["due_s"].tolist() == three.requests["due_s"].tolist()
    assert three.summary["generator"]["processes"] == 3


def test_method_headers_and_body_are_sent() -> None:
    with serving(greet) as server:
        result = attack(server.url, rate=10, duration=0.1, method="HEAD", headers={"X-Who": "me"})
    assert result.summary["ok"] == 1
    assert b"HEAD / HTTP/1.1\r\n" in server.requests[0]
    assert b"X-Who: me\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("method", "body", "length"), [("POST", b"abc", b"3"), ("POST", b"", b"0"), ("GET", b"", None)]
)
def test_a_body_is_sent_with_its_length(method: str, body: bytes, length: bytes | None) -> None:
    with serving(greet) as server:
        attack(server.url, rate=10, duration=0.1, method=method, body=body)
    assert re.findall(rb"Content-Length: (\d+)\r\n", server.requests[0]) == ([length] if length else [])
    target = check(server.url, remote=False)
    assert target.request(method, (), body, keepalive=False).endswith(b"\r\n\r\n" + body)


def test_headers_are_sent_as_given_twice_too_and_instead_of_ours() -> None:
    headers = ("--header", "X-API-KEY: b", "--header", "x-api-Key: c", "--header", "accept: text/plain")
    with serving(greet) as server, pytest.raises(SystemExit, match="0"):
        main(["attack", server.url, "--rate", "10", "--duration", "100ms", *headers])
    fields = server.requests[0].split(b"\r\n")[1:-2]
    assert fields[-3:] == [b"X-API-KEY: b", b"x-api-Key: c", b"accept: text/plain"]
    assert [field.partition(b":")[0] for field in fields[:-3]] == [b"Host", b"User-Agent", b"Connection"]


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"Content-Length": "3", "transfer-encoding": "chunked"}, b"abc", "cannot both be sent"),
        ((("Content-Length", "3"), ("content-length", "3")), b"abc", "cannot be sent twice"),
        ((("Host", "a"), ("HOST", "b")), b"", "cannot be sent twice"),
        ({"Content-Length": "4"}, b"abc", "must be 3, the size of the body"),
        ({"Transfer-Encoding": "gzip"}, b"abc", "must be chunked, got gzip"),
    ],
)
def test_a_request_ends_in_one_way(headers: Headers, body: bytes, says: str) -> None:
    with serving(greet) as server, pytest.raises(UsageError, match=says):
        attack(server.url, rate=10, duration=0.1, method="POST", headers=headers, body=body)


@pytest.mark.parametrize(("body", "chunks"), [(b"abc" * 6, b"12\r\n" + b"abc" * 6 + b"\r\n"), (b"", b"")])
def test_a_body_is_chunked_if_a_header_says_so(body: bytes, chunks: bytes) -> None:
    target = check("http://127.0.0.1/", remote=False)
    sent = target.request("POST", {"Transfer-Encoding": "chunked"}, body, keepalive=False)
    assert b"ontent-" not in sent
    assert sent.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("münchen?q=größe", b"/m%C3%BCnchen?q=gr%C3%B6%C3%9Fe"),
        ("a%20b/%zz/../[x]|'\"", b"/a%20b/%zz/../[x]|'\""),
        ("?x", b"/?x"),
        ("a#b", b"/a"),
    ],
)
def test_a_path_is_sent_as_given_what_is_not_ascii_percent_encoded(given: str, sent: bytes) -> None:
    target = check(f"http://127.0.0.1/{given}", remote=False)
    request = target.request("GET", (), b"", keepalive=False)
    assert request.startswith(b"GET " + sent + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "host", "server_name"),
    [
        ("https://München.example:444/", "xn--mnchen-3ya.example:444", "xn--mnchen-3ya.example"),
        ("https://faß.example:443", "xn--fa-hia.example", "xn--fa-hia.example"),
        ("http://LOCALHOST:8000", "localhost:8000", None),
        ("http://[::1]:80/", "[::1]", None),
    ],
)
def test_a_host_is_named_as_dns_knows_it(
    url: str, host: str, server_name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda name, port, **_: [(0, 0, 0, "", ("::1", port))])
    target = check(url, remote=False)
    assert (target.host, target.server_name) == (host, server_name)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("0", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("[::]", "::1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("[::ffff:0.0.0.0]", "127.0.0.1"),
        ("[::1]", "::1"),
    ],
)
def test_an_address_that_means_this_machine_is_this_machine(host: str, address: str) -> None:
    assert check(f"http://{host}:80/", remote=False).addresses == (address,)


def test_what_a_server_says_that_it_listens_on_can_be_attacked() -> None:
    with serving(greet) as server:
        for host in ("0.0.0.0", "[::ffff:127.0.0.1]"):
            url = f"http://{host}:{server.port}/"
            assert attack(url, rate=20, duration=0.1).summary["ok"] == 2
            assert f"\r\nHost: {host}:{server.port}\r\n".encode() in server.requests[-1]


def test_nothing_of_the_environment_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9/")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
    with serving(greet) as server:
        assert attack(server.url, rate=20, duration=0.1).summary["ok"] == 2
        https = server.url.replace("http", "https")
        assert attack(https, rate=20, duration=0.1, timeout=0.3).summary["outcomes"]["ok"] == 0
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUser-Agent: scaling-lab\r\n"
    head += "Accept: */*\r\nConnection: close\r\n\r\n"
    assert server.requests[:2] == [head.encode()] * 2


@pytest.mark.parametrize(
    ("stages", "planned"), [("ramp from 100/s to 500/s over 0.05s", 10), ("ramp to 200/s over 0.05s", 20)]
)
def test_a_warm_up_is_at_the_first_rate(stages: str, planned: int) -> None:
    with serving(greet) as server:
        warmup = attack(server.url, stages=stages, warmup=0.1).warmup
    assert len(warmup) == planned
    assert np.ptp(np.diff(warmup["due_s"])) < 1e-9


@pytest.mark.parametrize("none", [0, "0", "0s"])
def test_a_warm_up_of_nothing_is_none(none: float | str) -> None:
    with serving(greet) as server:
        result = attack(server.url, rate="6000/m", duration="50 ms", warmup=none)
        assert len(server.requests) == len(result.requests) == 5
    assert result.warmup.empty


def test_a_warm_up_is_no_copy_of_what_follows() -> None:
    with serving(greet) as server:
        result = attack(server.url, rate=50, duration=0.3, warmup=0.3, arrivals="poisson")
    after, before = (frame["due_s"].to_numpy() for frame in (result.requests, result.warmup))
    assert len(before) != len(after) or not np.allclose(before + 0.3, after)


def test_workers_statuses_and_bytes_are_the_servers() -> None:
    fields = b"X-Worker: 4711\r\nServer-Timing: loop;dur=2.5\r\n"

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x" * 10, "404 Not Found" if number == 0 else "200 OK", fields))

    with serving(behave) as server:
        summary = attack(server.url, rate=50, duration=0.1).summary
    assert summary["workers"] == {"4711": 5}
    assert summary["status_codes"] == {"200": 4, "404": 1}
    assert summary["errors"] == {"404 Not Found": 1}
    assert summary["bytes_in"] == 50
    assert summary["service_s"]["p50"] == pytest.approx(0.0025)
