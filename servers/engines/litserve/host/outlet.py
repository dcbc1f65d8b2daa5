"""The way out of a worker: replies of both of its threads, as frames on the socket."""

import select
import socket
import threading
from collections.abc import Sequence

from servers.engines.litserve.host import wire


class Outlet:
    """Collects replies until `flush`, so that those of a batch share a frame.

    The front door always reads, whatever its clients do, so that sending blocks for no longer than it is busy.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._replies: list[wire.Reply] = []
        self._bodies: list[bytes] = []
        self._size = 0
        self.is_closed = False

    def add(self, reply: wire.Reply, body: bytes = b"") -> None:
        """Send this with the next frame."""
        with self._lock:
            self._replies.append(reply)
            if body:
                self._bodies.append(body)
                self._size += len(body)
                if self._size > wire.CHUNK_BYTES:
                    self.flush()

    def send(self, replies: Sequence[tuple[wire.Reply, bytes]]) -> None:
        """Send these at once, after what was added before."""
        with self._lock:
            for reply, body in replies:
                self.add(reply, body)
            self.flush()

    def flush(self) -> None:
        """Send what was added."""
        with self._lock:
            if self._replies:
                data = wire.frame(wire.Replies(self._replies), self._bodies)
                self._replies, self._bodies, self._size = [], [], 0
                self._write(data)

    def send_frame(self, head: wire.Head) -> None:
        """Send a frame of another kind."""
        with self._lock:
            self._write(wire.frame(head))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view) and not self.is_closed:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                ready = select.poll()
                ready.register(self._connection, select.POLLOUT)
                ready.poll()
            except OSError:  # the front door is gone, and with it everybody who waits
                self.is_closed = True
