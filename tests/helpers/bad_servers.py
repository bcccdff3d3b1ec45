"""Servers that are not what a client hopes for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = {
    "fails": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
    "is busy": b"HTTP/1.1 429 Later\r\ncontent-length: 0\r\n\r\n",
    "is another": b"HTTP/1.1 404 What\r\ncontent-length: 0\r\n\r\n",
    "refuses the key": b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n",
    "is a page": b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
    "is a list": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
    "is cut": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
    "is no HTTP": b"\x00\x1b[31m\xff\r\n\r\n",
    "hangs up": b"",
    "is silent": None,
    "fails later": b"",
}
"""What each sends; None: nothing, ever. The last one only greets."""
GREETING = b'HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{"data":{"viewer":{"id":"x"}}}'


class Handler(BaseHTTPRequestHandler):
    server: Bad

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        asked = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = ANSWERS[self.server.kind]
        if answer is None:
            self.server.over.wait()
        elif self.server.kind == "fails later":
            self.wfile.write(GREETING if b"viewer { id }" in asked else ANSWERS["fails"] or b"")
        else:
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = answer  # noqa: N815


class Bad(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind, self.over = kind, threading.Event()

    def handle_error(self, *args: object) -> None:
        """A client that gives up is no error."""


@contextmanager
def bad_server(kind: str) -> Iterator[str]:
    """Yield the address of a server that behaves as ANSWERS says, on a free loopback port."""
    with Bad(kind) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.over.set()
        server.shutdown()
