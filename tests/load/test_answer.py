"""Answers are read the same however they are cut into pieces, and what is not HTTP is said to be so."""

import gzip
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.load.connection import Answer, MalformedAnswerError

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\n"
)
PLAIN = (
    b"HTTP/1.1 200 Very Well\r\ncontent-length: 5\r\nSERVER-TIMING: db;dur=3, loop;desc=hot;dur=37.432\r\n"
    b"X-Worker: 4242\r\n\r\nhello"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
EMPTY = b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"
FIELDS = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
READ_BY_BROWSERS = [
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
    FIELDS + b"Transfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
    FIELDS + b"X-Folded: a\r\n b\r\nX-Odd: \x01\r\n\r\nhello",
    FIELDS + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + FIELDS
    + b"X-Long: "
    + b"y" * 100_000
    + b"\r\n\r\nhello",
    FIELDS + b"X: y\r\n" * 10_000 + b"\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
]
"""Each with a body of five bytes, on a connection that stays."""
PACKED = gzip.compress(b"x" * 1000)


def read(data: bytes, cuts: list[int]) -> Answer:
    """Feed an answer in pieces."""
    answer, edges = Answer(), [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    complete = [answer.feed(data[low:high]) for low, high in pairwise(edges) if low < high]
    assert complete == [False] * (len(complete) - 1) + [True]
    return answer


@given(
    st.sampled_from([(CHUNKED, 11), (PLAIN, 5), (INTERIM, 5), (EMPTY, 0)]),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_pieces_do_not_matter(case: tuple[bytes, int], cuts: list[int]) -> None:
    answer = read(case[0], cuts)
    assert answer.bytes_in == case[1]
    assert answer.complete
    assert answer.reusable


@given(
    st.binary(max_size=3000),
    st.lists(st.integers(1, 700), max_size=6),
    st.lists(st.integers(0, 4000), max_size=5),
)
def test_any_body_in_any_chunks_is_counted(body: bytes, lengths: list[int], cuts: list[int]) -> None:
    chunks, rest = [], body
    for length in [*lengths, 3000]:
        chunk, rest = rest[:length], rest[length:]
        chunks += [b"%x\r\n%b\r\n" % (len(chunk), chunk)] if chunk else []
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    assert read(data, cuts).bytes_in == len(body)


@pytest.mark.parametrize("data", READ_BY_BROWSERS)
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 1000), max_size=4))
def test_what_browsers_read_is_read(data: bytes, cuts: list[int]) -> None:
    answer = read(data, cuts)
    assert (answer.status, answer.bytes_in, answer.reusable) == (200, 5, True)


def test_the_servers_own_words_are_kept() -> None:
    answer = read(PLAIN, [])
    assert (answer.status, answer.worker) == (200, 4242)
    assert answer.service_s == pytest.approx(0.037432)


def test_what_the_server_does_not_say_is_not_made_up() -> None:
    answer = read(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-Worker: seven\r\n\r\n", [])
    assert math.isnan(answer.service_s)
    assert answer.worker == 0


NO_NUMBERS = [
    *(
        b"Server-Timing: loop;dur=" + text
        for text in (b"9" * 400, b"1" * 13, b"inf", b"nan", b"-1", b"1_0", b"")
    ),
    *(b"X-Worker: " + text for text in (b"9" * 400, b"-1", b"seven", b"1.5", b"")),
]


@pytest.mark.parametrize("field", NO_NUMBERS, ids=lambda field: field[:40].decode())
def test_a_number_that_is_none_is_ignored_and_said_to_be(field: bytes) -> None:
    answer = read(FIELDS + field + b"\r\n\r\nhello", [])
    assert math.isnan(answer.service_s)
    assert (answer.worker, answer.status, answer.unreadable) == (0, 200, True)


@pytest.mark.parametrize(
    ("timing", "service_s", "service_cpu_s"),
    [
        (b'db;dur=9, loop;desc="a;b";dur="37.5"', 0.0375, math.nan),
        (b"loop; dur = 2 , db;dur=nan", 0.002, math.nan),
        (b"loop;dur=5e-05", 5e-8, math.nan),
        (b"loop;dur=0,cpu;dur=0", 0.0, 0.0),
        (b"db;dur=nan, looping;dur=inf, loop, cpus;dur=1", math.nan, math.nan),
        (b"loop;dur=2, cpu;dur=1.5", 0.002, 0.0015),
        (b"cpu;dur=1.5\r\nServer-Timing: loop;dur=2", 0.002, 0.0015),
    ],
)
def test_a_time_is_read_where_there_is_one(timing: bytes, service_s: float, service_cpu_s: float) -> None:
    answer = read(FIELDS + b"Server-Timing: " + timing + b"\r\n\r\nhello", [])
    assert answer.service_s == pytest.approx(service_s, nan_ok=True)
    assert answer.service_cpu_s == pytest.approx(service_cpu_s, nan_ok=True)
    assert not answer.unreadable


@pytest.mark.parametrize("coding", [b"", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip\r\n"])
def test_without_a_length_the_connection_is_the_length(coding: bytes) -> None:
    answer = Answer()
    assert not answer.feed(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n" + PACKED)
    assert answer.complete_at_eof()
    assert answer.bytes_in == len(PACKED)


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"HTTP/1.1 200 OK\r\nCont", CHUNKED[:-2], b""],
)
def test_a_part_is_not_the_whole(data: bytes) -> None:
    answer = Answer()
    assert not answer.feed(data)
    assert not answer.complete_at_eof()


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_answer_to_head_has_no_body(framing: bytes) -> None:
    assert Answer(without_body=True).feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")


@pytest.mark.parametrize("status", [b"204", b"304"])
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
def test_some_statuses_have_no_body(status: bytes, framing: bytes) -> None:
    assert read(b"HTTP/1.1 " + status + b" X\r\n" + framing + b"\r\n\r\n", []).reusable


@given(cuts=st.lists(st.integers(0, 1000), max_size=4))
def test_another_protocol_ends_the_conversation(cuts: list[int]) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    answer = read(head, cuts)
    assert (answer.status, answer.complete, answer.reusable) == (101, True, False)
    assert Answer().feed(head + b"\x81\x05hello")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 400_000), max_size=6))
def test_how_long_a_head_may_be_does_not_depend_on_its_pieces(cuts: list[int]) -> None:
    for size, fits in ((262_144, True), (262_145, False)):
        head = FIELDS + b"X: " + b"y" * (size - len(FIELDS) - 7) + b"\r\n\r\n"
        try:
            assert read(head + b"hello", cuts).complete
        except MalformedAnswerError:
            assert not fits
        else:
            assert fits


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore than that", False),
    ],
)
def test_a_connection_is_used_again_only_if_the_server_allows_it(head: bytes, reusable: bool) -> None:
    assert read(head, []).reusable == reusable


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
        FIELDS + b"Content-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
    ],
)
def test_what_is_not_http_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        Answer().feed(data)
