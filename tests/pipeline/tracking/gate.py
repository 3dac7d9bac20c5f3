"""A way to a server that a test can close: the server is gone then, or it does not answer."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Gate:
    """Forwards connections of ``port`` to a server's port of this machine, in one of three states.

    open: as if it were not there; gone: connections end at once; silent: connections are taken and nothing is answered.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._state = "open"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def be(self, state: str) -> None:
        """Take another state; connections that are there end."""
        self._state = state
        for one in self._held:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._held.clear()

    def close(self) -> None:
        """Listen no more."""
        self.be("gone")
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if self._state == "gone":
                caller.close()
                continue
            self._held.append(caller)
            if self._state == "open":
                server = socket.create_connection(("127.0.0.1", self._server))
                self._held.append(server)
                for source, target in ((caller, server), (server, caller)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)
