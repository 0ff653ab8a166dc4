"""HTTP/1.1 answers, read piece by piece: just what a record needs, too cheap to disturb sending."""

import re

_HEAD_LIMIT = 65_536
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: ([^\r\n]*))?(?:\r\n|$)")
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|server-timing|x-worker):[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
_LOOP = re.compile(rb"(?:^|,)\s*loop\s*;[^,]*?dur=(\d+(?:\.\d+)?)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class MalformedAnswerError(ValueError):
    """What came back is not HTTP/1.x."""


class Answer:
    """One answer. Feed it what arrives until it is complete.

    `status` is 0 until the head is complete; `service_s` is the server's own `Server-Timing: loop`, NaN
    without one; `worker` is `X-Worker`, 0 without one; `bytes_in` counts the body as it came, without its
    framing.
    """

    __slots__ = (
        *("bytes_in", "complete", "reason", "reusable", "service_s", "status", "worker"),
        *("_chunk_left", "_left", "_pending", "_without_body"),
    )

    def __init__(self, *, without_body: bool = False) -> None:
        self.status = 0
        self.reason = ""
        self.service_s = float("nan")
        self.worker = 0
        self.bytes_in = 0
        self.complete = False
        self.reusable = False
        self._without_body = without_body  # the answer to HEAD has a length, and no body
        self._pending = b""
        self._chunk_left = 0  # with its two bytes of line end
        self._left: int | None = 0  # of the body; None until the connection closes; -1 in chunks

    def feed(self, data: bytes) -> bool:
        """Take what has arrived and return whether the answer is complete.

        Raises MalformedAnswerError.
        """
        self.complete = self._feed(data)
        return self.complete

    def complete_at_eof(self) -> bool:
        """Return whether the end of the connection is the end of this answer."""
        return self.status > 0 and self._left is None

    def _feed(self, data: bytes) -> bool:
        if not self.status:
            data = self._pending + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return self._wait_for_head(data)
            self._pending = b""
            self._read_head(data[:end])
            data = data[end + 4 :]
            if 100 <= self.status < 200:  # an interim answer: the real one follows
                self.status = 0
                return bool(data) and self._feed(data)
        return self._read_body(data)

    def _wait_for_head(self, data: bytes) -> bool:
        if len(data) > _HEAD_LIMIT or not b"HTTP/1.".startswith(data[:7]):
            raise MalformedAnswerError("the answer is not HTTP/1.x")
        self._pending = data
        return False

    def _read_head(self, head: bytes) -> None:
        line = _STATUS.match(head)
        if not line:
            raise MalformedAnswerError("the answer is not HTTP/1.x")
        self.status = int(line[2])
        self.reason = (line[3] or b"").decode("latin-1").strip()
        fields = {name.lower(): value for name, value in _FIELD.findall(head)}
        connection = fields.get(b"connection", b"").lower()
        self.reusable = connection != b"close" if line[1] == b"1" else connection == b"keep-alive"
        if b"server-timing" in fields and (loop := _LOOP.search(fields[b"server-timing"])):
            self.service_s = float(loop[1]) / 1000
        if b"x-worker" in fields and (worker := fields[b"x-worker"].strip()).isdigit() and len(worker) < 10:
            self.worker = int(worker)
        self._left = self._body_length(fields)

    def _body_length(self, fields: dict[bytes, bytes]) -> int | None:
        if self._without_body or self.status in (204, 304) or self.status < 200:
            return 0
        if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            return -1
        if b"content-length" not in fields:
            self.reusable = False
            return None
        if not (length := fields[b"content-length"].strip()).isdigit():
            raise MalformedAnswerError("the answer's Content-Length is not a number")
        return int(length)

    def _read_body(self, data: bytes) -> bool:
        if self._left is None:
            self.bytes_in += len(data)
            return False
        if self._left < 0:
            return self._read_chunks(data)
        self.bytes_in += min(self._left, len(data))
        self.reusable = self.reusable and len(data) <= self._left  # what follows an answer was not asked for
        self._left -= min(self._left, len(data))
        return self._left == 0

    def _read_chunks(self, data: bytes) -> bool:
        data, at = self._pending + data, 0
        while True:
            taken = min(self._chunk_left, len(data) - at)
            self.bytes_in += min(taken, max(self._chunk_left - 2, 0))  # a chunk ends in an empty line
            self._chunk_left -= taken
            at += taken
            size = _CHUNK.match(data, at)
            if not size or not int(size[1], 16):
                return self._end_of_chunks(data[at:], last=bool(size))
            self._chunk_left = int(size[1], 16) + 2
            at = size.end()

    def _end_of_chunks(self, data: bytes, *, last: bool) -> bool:
        """`data` begins where a chunk should; the last is empty, and fields may follow up to a blank line."""
        if not last and (b"\r\n" in data or len(data) > _HEAD_LIMIT):
            raise MalformedAnswerError("the answer is not in chunks, as it says")
        self._pending = data
        return last and b"\r\n\r\n" in data
