"""The process of tests.servers.LostAnswers: python -m tests.lossy_proxy HOST:PORT PART NUMBER; prints its port."""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit


class Hold:
    """The upload at which the sender is held: the ``number``-th one of a path that contains ``part``, before the
    server has it or ``after`` it. ``reached`` is set there, and the request ends without an answer at ``ended``.
    """

    def __init__(self, part: str, number: int, after: bool) -> None:
        self.part, self.left, self.after = part, number, after
        self.reached, self.ended = threading.Event(), threading.Event()


class Faults:
    """A fault at every ``every``-th request from now, of the ``kinds`` in turn. "500" and "503" are answers of a server
    that did not do what was asked. At "cut" the connection ends before the server has the request, at "lost" after
    that. At "silent" there is no answer for ``SILENCE`` seconds, and then it ends. ``count`` is how many there were.
    """

    SILENCE = 6.0
    CODES: ClassVar = {"500": "InternalError", "503": "SlowDown"}

    def __init__(self, kinds: list[str], every: int) -> None:
        self.kinds, self.every, self.requests, self.count = kinds, every, 0, 0

    def next(self) -> str:
        """The fault of the next request; empty for none."""
        self.requests += 1
        if not self.every or self.requests % self.every:
            return ""
        self.count += 1
        return self.kinds[self.count % len(self.kinds)]


def main(host: str, part: str, lose: int) -> None:
    lock, lost, faults = threading.Lock(), [0], [Faults([], 0)]
    uploads: list[str] = []
    holds: list[Hold] = []

    def hold_at(path: str) -> Hold | None:
        with lock:
            uploads.append(path)
            if not holds or holds[-1].left == 0 or holds[-1].part not in path:
                return None
            holds[-1].left -= 1
            return holds[-1] if holds[-1].left == 0 else None

    def control(path: str) -> str:
        """The answer to a request of a test."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}
        if "faults" in asked:
            faults.append(Faults(asked["faults"].split(","), int(asked["every"])))
        if "faulty" in asked:
            return str(sum(one.count for one in faults))
        if "hold" in asked:
            holds.append(Hold(asked["hold"], int(asked["number"]), asked["after"] == "True"))
        if "held" in asked:
            return str(holds[-1].reached.wait(0.5))
        if "drop" in asked and holds:
            holds[-1].left = 0
            holds[-1].ended.set()
        if "uploads" in asked:
            return "\n".join(uploads)
        return str(lost[0])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/?test&"):
                self.answer(200, [], control(self.path).encode())
                return
            with lock:
                fault = faults[-1].next()
            if fault in Faults.CODES:
                text = f"<Error><Code>{Faults.CODES[fault]}</Code><Message>a fault of the test</Message></Error>"
                self.answer(int(fault), [("Content-Type", "application/xml")], text.encode())
                return
            if fault in ("cut", "silent"):
                time.sleep(Faults.SILENCE if fault == "silent" else 0.0)
                self.hang_up()
                return
            hold = hold_at(self.path) if self.command == "PUT" else None
            if hold is not None and not hold.after:
                self.hold(hold)
                return
            with closing(HTTPConnection(host, timeout=60)) as connection:
                connection.request(self.command, self.path, body or None, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
            with lock:
                loses = fault == "lost" or (
                    self.command == "PUT" and part in self.path and lost[0] < lose and answer.status == 200
                )
                lost[0] += loses
            if hold is not None:
                self.hold(hold)
            elif loses or fault == "lost":
                self.hang_up()
            else:
                self.answer(answer.status, answer.getheaders(), content)

        def hold(self, hold: Hold) -> None:
            hold.reached.set()
            hold.ended.wait()
            self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the server has its own log."""

    for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
