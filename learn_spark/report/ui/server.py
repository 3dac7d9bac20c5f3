"""The front page and its neighbours over HTTP: on the loopback interface alone, GET and HEAD, files of one folder."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.ui.live import as_html, live
from learn_spark.report.ui.pages import alone, page_mark, with_panel

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
SECONDS = 15.0  # that a request may take to arrive
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".yaml": "text/plain; charset=utf-8",
}
NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Pages have styles of their own and no scripts; the front page has one script, which asks this server alone.
PAGE_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {NOTHING_ELSE}"
LIVE_POLICY = f"{PAGE_POLICY}; script-src 'self'; connect-src 'self'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class UiServer(ThreadingHTTPServer):
    """Serves one workspace on the loopback interface."""

    daemon_threads = True

    def __init__(self, workspace: Workspace, port: int) -> None:
        """Listen on ``port`` (0: any free one). Raises LearnSparkError if it is taken."""
        self.workspace = workspace
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise LearnSparkError(f"ui: port {port} cannot be used ({error}); --port gives another one") from None

    @property
    def url(self) -> str:
        """The address of the front page."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: UiServer
    server_version, sys_version = "learn-spark", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def __getattr__(self, name: str) -> Any:
        # Of methods that are not above: http.server looks for do_POST and so on.
        if name.startswith("do_"):
            return lambda: self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: who looks at a page is nobody's business."""

    def _answer(self) -> None:
        # Against DNS rebinding: a page of another name that leads here must not read this one.
        if self.headers.get_all("Host") not in [[f"{name}:{self.server.server_port}"] for name in NAMES]:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path)
        try:
            if path in ("/", "/index.html"):
                self._send(self._front(), "text/html; charset=utf-8", LIVE_POLICY)
            elif path == "/live.json":
                self._send(self._live(), "application/json", PAGE_POLICY)
            elif path == "/live.js":
                script = (files("learn_spark.report.ui") / "live.js").read_bytes()
                self._send(script, "text/javascript; charset=utf-8", PAGE_POLICY)
            else:
                self._file(path)
        except (OSError, ValueError, LearnSparkError):
            self._refuse(HTTPStatus.NOT_FOUND)

    def _front(self) -> bytes:
        workspace = self.server.workspace
        now = live(workspace)
        try:
            page = (workspace.place / "reports" / "index.html").read_text()
        except FileNotFoundError:
            return alone(workspace.place.name, now).encode()
        return with_panel(page, now, page_mark(workspace)).encode()

    def _live(self) -> bytes:
        now = live(self.server.workspace)
        answer = {"sentence": now.sentence, "html": as_html(now), "page": page_mark(self.server.workspace)}
        return json.dumps(answer).encode()

    def _file(self, path: str) -> None:
        """A file below reports/, by a path of plain names."""
        parts = path.removeprefix("/").split("/")
        kind = TYPES.get("." + parts[-1].rpartition(".")[2])
        if kind is None or any(
            part.startswith(".") or not part or not part.isprintable() or "\\" in part for part in parts
        ):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        reports = self.server.workspace.place / "reports"
        file = reports / "/".join(parts)
        if reports.is_local:
            # A link that leads out of the folder is no part of it.
            file.local.resolve(strict=True).relative_to(reports.local.resolve())
        self._send(file.read_bytes(), kind, PAGE_POLICY)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", PAGE_POLICY, status)

    def _send(self, body: bytes, kind: str, policy: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        sent = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy, **HEADERS}
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            sent["Allow"] = "GET, HEAD"
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(server: UiServer) -> None:
    """Serve until Ctrl-C."""
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
