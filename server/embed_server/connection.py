"""`Connection`: uvicorn's protocol, with a limit to what a request says before its body."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Twice what nginx lets through unless it is told otherwise.
MAX_HEAD_BYTES = 1 << 16

_TOO_LARGE = b"The request has more than %d bytes of headers." % MAX_HEAD_BYTES
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class Connection(HttpToolsProtocol):
    """Closes a connection that sends more than `MAX_HEAD_BYTES` of line and headers.

    They are held in memory before anybody can ask for a key. The same holds for the headers behind
    a body in chunks: whatever comes without being a part of a body counts.
    """

    _num_held = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, in parts that do not go beyond the limit."""
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
        super().on_message_complete()

    def _refuse(self) -> None:
        if not self.cycle or self.cycle.response_complete:  # else it would end up in an answer
            self.transport.write(_ANSWER)
        self.transport.close()
