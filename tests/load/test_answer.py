"""Answers are read the same however they are cut into pieces, and what is not HTTP is said to be so."""

import gzip
import math
from itertools import pairwise

import pytest
from hypothesis import given
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


def test_the_servers_own_words_are_kept() -> None:
    answer = read(PLAIN, [])
    assert (answer.status, answer.worker) == (200, 4242)
    assert answer.service_s == pytest.approx(0.037432)


def test_what_the_server_does_not_say_is_not_made_up() -> None:
    answer = read(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-Worker: seven\r\n\r\n", [])
    assert math.isnan(answer.service_s)
    assert answer.worker == 0


def test_without_a_length_the_connection_is_the_length() -> None:
    answer = Answer()
    assert not answer.feed(b"HTTP/1.1 200 OK\r\n\r\n" + PACKED)
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


def test_an_answer_to_head_has_no_body() -> None:
    assert Answer(without_body=True).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")


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
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
    ],
)
def test_what_is_not_http_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        Answer().feed(data)
