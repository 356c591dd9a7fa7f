"""A real server's limit to what a request says before its body, whoever it is from."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embed_server.connection import MAX_HEAD_BYTES

GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
BODY = b'{"input": "a", "user": "%b"}' % (b"x" * 3 * MAX_HEAD_BYTES)
POST = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n"
    b"Content-Type: application/json\r\n"
)


def test_large_headers_are_refused_and_large_bodies_are_not(
    start_server: Any, dummy_bundle: Callable[..., Path]
) -> None:
    server = start_server(dummy_bundle(), "--api-key", "key")

    def ask(*parts: bytes) -> bytes:
        """Send parts, each behind the first after an answer began, and read to the end."""
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            answer = b""
            for part in parts:
                answer += connection.recv(12) if part is not parts[0] else b""
                connection.sendall(part)
            return answer + connection.makefile("rb").read()

    def fill(start: bytes, size: int, end: bytes = b"\r\n\r\n") -> bytes:
        return start + b"x: " + b"x" * (size - len(start) - 3 - len(end)) + end

    refused = b"HTTP/1.1 431 "
    assert ask(fill(GET, MAX_HEAD_BYTES)).startswith(b"HTTP/1.1 200 ")
    assert ask(fill(GET, MAX_HEAD_BYTES + 1)).startswith(refused)
    assert ask(fill(GET, MAX_HEAD_BYTES + 1, end=b"")).startswith(refused)
    assert ask(b"GET /" + b"x" * MAX_HEAD_BYTES).startswith(refused)

    whole = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    answers = ask(POST + whole + POST + chunks + fill(GET, MAX_HEAD_BYTES - 1000))
    assert answers.count(b"HTTP/1.1 200 ") == 3

    # Headers behind a body, in a request that was turned away for want of a key.
    start = b"POST /info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    answers = ask(start, fill(b"0\r\n", MAX_HEAD_BYTES + 1, end=b""))
    assert answers.startswith(b"HTTP/1.1 401 ")
    assert refused in answers
    assert server.stop() == 0


def test_an_offer_of_http2_costs_a_request_nothing(
    start_server: Any, dummy_bundle: Callable[..., Path]
) -> None:
    """As Java's client makes it, head and body apart, on a connection that stays."""
    server = start_server(dummy_bundle())
    body = b'{"input": ["a", "b"]}'
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Content-Length: %d\r\nHost: x\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
        b"Upgrade: h2c\r\nContent-Type: application/json\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        answers = connection.makefile("rb")
        for _ in range(2):
            connection.sendall(head)
            connection.sendall(body)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(
                line.rstrip().split(b": ", 1) for line in iter(answers.readline, b"\r\n")
            )
            answer = answers.read(int(headers[b"content-length"]))
            assert answer.count(b'"object":"embedding"') == 2
    assert server.stop() == 0
