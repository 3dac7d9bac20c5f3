"""The process of tests.servers.LostAnswers: python -m tests.lossy_proxy HOST:PORT PART NUMBER; prints its port."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Hold:
    """The upload at which the sender is held: the ``number``-th one of a path that contains ``part``, before the
    server has it or ``after`` it. ``reached`` is set there, and the request ends without an answer at ``ended``.
    """

    def __init__(self, part: str, number: int, after: bool) -> None:
        self.part, self.left, self.after = part, number, after
        self.reached, self.ended = threading.Event(), threading.Event()


def main(host: str, part: str, lose: int) -> None:
    lock, lost = threading.Lock(), [0]
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
        if "hold" in asked:
            holds.append(Hold(asked["hold"], int(asked["number"]), asked["after"] == "True"))
        if "held" in asked:
            return str(holds[-1].reached.wait(0.5))
        if "drop" in asked:
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
            hold = hold_at(self.path) if self.command == "PUT" else None
            if hold is not None and not hold.after:
                self.hold(hold)
                return
            with closing(HTTPConnection(host, timeout=60)) as connection:
                connection.request(self.command, self.path, body or None, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
            with lock:
                loses = self.command == "PUT" and part in self.path and lost[0] < lose and answer.status == 200
                lost[0] += loses
            if hold is not None:
                self.hold(hold)
            elif loses:
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
