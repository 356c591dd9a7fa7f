"""`Connection`: uvicorn's protocol, with a limit to headers, and deaf to offers of HTTP/2."""

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Twice what nginx lets through unless it is told otherwise.
MAX_HEAD_BYTES = 1 << 16

# What Java's client puts into every request over http. A server may ignore it (RFC 9110, 7.8).
_OFFER_OF_HTTP2 = re.compile(rb"\r\nUpgrade:[ \t]*h2c[ \t]*(?=\r\n|\Z)", re.IGNORECASE)

_TOO_LARGE = b"The request has more than %d bytes of headers." % MAX_HEAD_BYTES
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class Connection(HttpToolsProtocol):
    """Closes a connection that sends more than `MAX_HEAD_BYTES` of line and headers.

    They are held in memory before anybody can ask for a key. The same holds for the headers behind
    a body in chunks: whatever comes without being a part of a body counts.

    An offer to go on in HTTP/2 is taken out, for the parser would skip the body of a request that
    has one.
    """

    _num_held = 0
    _is_at_start = True

    def data_received(self, data: bytes) -> None:
        """Parse what came, in parts that do not go beyond the limit."""
        if self._is_at_start and b"h2c" in data:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _OFFER_OF_HTTP2.sub(b"", head) + end + rest
        self._is_at_start = False
        while data and not self.transport.is_closing():
            room = MAX_HEAD_BYTES - self._num_held
            if not room:
                self._refuse()
                return
            self._num_held += min(room, len(data))
            super().data_received(data[:room])
            data = data[room:]

    def on_headers_complete(self) -> None:
        """Take note that the headers are handed on."""
        self._num_held = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take note that what came is handed on."""
        self._num_held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note that a new request begins."""
        self._num_held = 0
        self._is_at_start = True
        super().on_message_complete()

    def _refuse(self) -> None:
        if not self.cycle or self.cycle.response_complete:  # else it would end up in an answer
            self.transport.write(_ANSWER)
        self.transport.close()
