"""learn-spark ui by real requests: what it serves, to whom, and that it changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from html import unescape
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.console_log import CONSOLE_LOG, ConsoleLog, newest_lines
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.holders import holders
from learn_spark.core.tables.runs import Run, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.tables.workspace_locks import writer_of
from learn_spark.report.page import render
from learn_spark.report.templates import POLICY
from learn_spark.report.ui.server import LIVE_POLICY, PAGE_POLICY, UiServer
from tests.report.browser import FLAGS, chromium
from tests.report.workspace import HOSTILE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one run, its front page, a page beside it, and things that are not to be served."""
    folder = tmp_path_factory.mktemp("ui")
    made = Workspace.open(str(folder / "shop"))
    started = datetime(2024, 1, 1, tzinfo=UTC)
    run = Run("20240101T000000-aa", "ingest", "failed", "c", "v", {}, {}, {"rows_in": 3}, 1.5, started, HOSTILE)
    record(made, run)
    record(made, Run("20240102T000000-bb", "ingest", "done", "c", "v", {}, {}, {"rows_in": 3}, 1.5, started))
    reports = made.root / "reports"
    (reports / "quality").mkdir(parents=True)
    (reports / "index.html").write_text(render(made), encoding="utf-8")
    (reports / "quality" / "index.html").write_text("gates", encoding="utf-8")
    (reports / "settings.yaml").write_text("a: 1", encoding="utf-8")
    (reports / ".hidden.html").write_text("secret", encoding="utf-8")
    (reports / "rows.parquet").write_text("secret", encoding="utf-8")
    (folder / "outside.html").write_text("secret", encoding="utf-8")
    (reports / "link.html").symlink_to(folder / "outside.html")
    (reports / "folder.html").symlink_to(folder)
    return made


@contextmanager
def served(workspace: Workspace, kind: type[UiServer] = UiServer) -> Iterator[UiServer]:
    server = kind(workspace, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[UiServer]:
    with served(workspace) as running:
        yield running


def ask(server: UiServer, path: str, method: str = "GET", hosts: list[str] | None = None) -> tuple[HTTPResponse, str]:
    """The answer to one request with these ``hosts`` as its Host lines; None: the server's own name."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for host in [f"127.0.0.1:{server.server_port}"] if hosts is None else hosts:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_front_page_has_the_panel_and_one_script_from_the_server_alone(server: UiServer) -> None:
    answer, page = ask(server, "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"] == LIVE_POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert '<p role="status" id="now-sentence">Nothing works on this workspace now.</p>' in page
    assert page.index("<h1>") < page.index('id="now"') < page.index('id="recommendations"')
    # The policy in the head of the written file forbids the script, too: it gives way to the header.
    assert POLICY not in page
    assert re.findall(r"<script[^>]*>", page) == [page[page.index("<script") : page.index("></script>") + 1]]
    assert re.findall(r'(?:src|action)="([^"]*)"', page) == ["/live.js"]
    assert "https:" not in page
    script, text = ask(server, "/live.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "http" not in text
    same, _ = ask(server, "/index.html")
    assert same.status == 200


def test_head_is_get_without_a_body(server: UiServer) -> None:
    for path in ("/", "/settings.yaml", "/gone.html"):
        (get, body), (head, nothing) = ask(server, path), ask(server, path, "HEAD")
        assert (head.status, nothing) == (get.status, "")
        assert int(head.headers["Content-Length"]) == len(body.encode())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(server: UiServer, method: str) -> None:
    answer, _ = ask(server, "/", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_only_a_reader_that_named_this_machine_is_answered(server: UiServer) -> None:
    """A page of a name that leads here (DNS rebinding) sends its own name."""
    port = server.server_port
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert ask(server, "/", hosts=[f"localhost:{port}"])[0].status == 200
    ours = f"127.0.0.1:{port}"
    for hosts in (
        [f"evil.example:{port}"],
        ["evil.example"],
        [f"127.0.0.1.evil.example:{port}"],
        ["127.0.0.1"],
        [f"127.0.0.1:{port + 1}"],
        [""],
        [],
        [ours, f"evil.example:{port}"],
    ):
        for path in ("/", "/live.json", "/settings.yaml"):
            answer, text = ask(server, path, hosts=hosts)
            assert (answer.status, "shop" in text) == (421, False), hosts


def test_pages_beside_it_are_served_without_scripts(server: UiServer) -> None:
    for path, kind, body in (
        ("/quality/index.html", "text/html; charset=utf-8", "gates"),
        ("/settings.yaml?x=1", "text/plain; charset=utf-8", "a: 1"),
    ):
        answer, text = ask(server, path)
        assert (answer.status, answer.headers["Content-Type"], text) == (200, kind, body)
        assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "script" not in PAGE_POLICY


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.html",
        "/%2e%2e/%2e%2e/outside.html",
        "/..%2f..%2foutside.html",
        "/quality/../../../outside.html",
        "/quality/..%5c..%5coutside.html",
        "//etc/hosts.html",
        "/etc/passwd",
        "/link.html",
        "/folder.html/outside.html",
        "/folder.html",
        "/.hidden.html",
        "/rows.parquet",
        "/quality",
        "/quality/",
        "/index.html%00.html",
        "/%0d%0aX-Evil:1.html",
        "/gone.html",
        "/" + "a" * 5000 + ".html",
        "/workspace.json",
    ],
)
def test_no_path_leaves_the_folder(server: UiServer, path: str) -> None:
    answer, text = ask(server, path)
    assert (answer.status, text) == (404, "404 Not Found\n")
    assert "X-Evil" not in answer.headers


def now(server: UiServer) -> dict[str, Any]:
    answer, text = ask(server, "/live.json")
    assert answer.status == 200
    found: dict[str, Any] = json.loads(text)
    return found


def test_while_a_run_works_its_stage_its_count_and_its_lines_are_shown(server: UiServer, workspace: Workspace) -> None:
    console = Reporter(quiet=True)
    log = ConsoleLog(workspace.folder("logs") / CONSOLE_LOG)
    with writer_of(workspace, ["items"], "a run of ingest") as held, console.kept_in(log):
        held.at("stage ingest, 1 of 2")
        console.say(f"reading {HOSTILE}")
        console.progress("encoding: 30 of 120 texts", 30, 120, drawn=True)
        found = now(server)
        assert re.fullmatch(r"Stage ingest, 1 of 2 \(the command began [\d: -]+ UTC\)\.", found["sentence"])
        assert '<progress max="120" value="30"></progress>' in found["html"]
        assert HOSTILE in unescape(found["html"])
        assert "<script" not in found["html"]
        assert "<img" not in found["html"]
        console.say("encoded")
        assert "<progress" not in now(server)["html"], "something else works since"
    found = now(server)
    assert found["sentence"] == "Nothing works on this workspace now."
    assert "encoded" in found["html"], "the last lines stay"
    assert re.search(r'ingest: <span class="done">done</span>, 2024-01-01 00:00:00 UTC, 1\.5 s', found["html"])
    # A page that is written again is another one.
    before = found["page"]
    (workspace.root / "reports" / "index.html").write_text(render(workspace), encoding="utf-8")
    assert now(server)["page"] != before


def test_a_killed_process_works_no_more(tmp_path: Path) -> None:
    """Its holder's file stays, and says the same as that of a process at work."""
    workspace = Workspace.open(str(tmp_path / "w"))
    folder = workspace.root / "locks" / "workspace"
    with writer_of(workspace, ["items"], "a run of ingest"):
        (file,) = folder.glob("user-*.holder")
        (one,) = holders(folder)
        assert (one.job, one.at) == ("a run of ingest", "")
        (folder / "user-1-dead.lock").touch()
        (folder / "user-1-dead.lock.holder").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        (folder / "user-2-odd.lock.holder").write_text("[1", encoding="utf-8")
        assert holders(folder) == [one]
    assert holders(folder) == []


def test_nothing_is_written(server: UiServer, workspace: Workspace) -> None:
    def tree() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(workspace.root.rglob("*"))}

    before = tree()
    for path in ("/", "/live.json", "/live.js", "/quality/index.html", "/gone.html"):
        ask(server, path)
    assert tree() == before


def test_a_workspace_without_a_page_has_the_panel_and_a_taken_port_is_an_error(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "new"))
    with served(workspace) as running:
        answer, page = ask(running, "/")
        assert answer.status == 200
        assert "There is no front page yet" in page
        assert "Nothing works on this workspace now." in page
        with pytest.raises(LearnSparkError, match=rf"port {running.server_port} cannot be used .*--port gives another"):
            UiServer(workspace, running.server_port)


def test_the_log_begins_anew_when_it_is_large_and_broken_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / CONSOLE_LOG
    ConsoleLog(path).write("first")
    with path.open("a", encoding="utf-8") as file:
        file.write('{"half":\n')
    ConsoleLog(path).write("long " * 1000, 1, 2)
    first, second = newest_lines(path, 10)
    assert (first.text, second.done, second.total, len(second.text)) == ("first", 1, 2, 2000)
    with path.open("a", encoding="utf-8") as file:
        file.write("x" * 2_000_000)
    ConsoleLog(path).write("anew")
    assert [line.text for line in newest_lines(path, 10)] == ["anew"]
    # A folder that may not be written stops no run.
    ConsoleLog(tmp_path / "gone" / CONSOLE_LOG).write("nowhere")
    assert newest_lines(tmp_path / "gone" / CONSOLE_LOG, 10) == []


def test_a_browser_follows_what_works(workspace: Workspace, tmp_path: Path) -> None:
    """The script runs under the policy, and replaces the lines by newer ones."""
    log = ConsoleLog(workspace.folder("logs") / CONSOLE_LOG)
    written = [0]

    class Counting(UiServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            written[0] += 1
            log.write(f"line {written[0]} of a run")
            super().finish_request(request, client_address)

    with served(workspace, Counting) as running:
        command = [chromium(), *FLAGS, f"--user-data-dir={tmp_path}", "--virtual-time-budget=1500", "--dump-dom"]
        done = subprocess.run([*command, running.url], capture_output=True, text=True, timeout=240, check=False)
    lines = [int(number) for number in re.findall(r"line (\d+) of a run", done.stdout)]
    # The page itself was the first request, its script the second.
    assert max(lines, default=0) > 2, done.stderr[-2000:]
    assert "learn-spark ui has ended" not in done.stdout
