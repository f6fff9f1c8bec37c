"""A router that speaks frames as it is told to, on a port of this machine: for what a good one never does."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from omendb_common.errors import OmenDBError
from omendb_common.wire import status
from omendb_common.wire.frames import Frame, FrameDecoder, Kind, encode
from omendb_proto.v1 import frames_pb2
from omendb_proto.v1 import router_pb2 as pb

CHANGED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: omendb-frames/1\r\n\r\n"


class Peer:
    """One connection of a client, as the router sees it."""

    def __init__(self, sock: socket.socket, in_flight_max: int) -> None:
        self.sock = sock
        self._decoder = FrameDecoder(1 << 30)
        self._in_flight_max = in_flight_max

    def change(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(4096)
        self.sock.sendall(CHANGED)
        assert self.frame().kind == Kind.HELLO
        hello = frames_pb2.Hello(
            version_min=1,
            version_max=1,
            role="router",
            in_flight_max=self._in_flight_max,
            frame_bytes_max=1 << 30,
        )
        self.send(Kind.HELLO, 0, hello.SerializeToString())

    def frame(self) -> Frame:
        """The next one; EOFError when the client has gone."""
        while (found := self._decoder.next()) is None:
            count = self.sock.recv_into(self._decoder.room())
            if not count:
                raise EOFError
            self._decoder.received(count)
        return found

    def send(self, kind: Kind, call: int, message: bytes = b"") -> None:
        self.sock.sendall(b"".join(bytes(part) for part in encode(kind, call, message)))

    def info(self, call: int) -> None:
        self.send(Kind.RESPONSE, call, pb.ServerInfoReply(version="scripted").SerializeToString())

    def refuse(self, call: int, error: OmenDBError) -> None:
        self.send(Kind.ERROR, call, status.to_bytes(error))


class ScriptedRouter:
    """Serves one connection after the other by ``script``; what a script raised is told by :meth:`end`."""

    def __init__(self, script: Callable[[Peer], None], in_flight_max: int = 100) -> None:
        self._script = script
        self._in_flight_max = in_flight_max
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._faults: queue.Queue[BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with sock:
                sock.settimeout(20)
                try:
                    peer = Peer(sock, self._in_flight_max)
                    peer.change()
                    self._script(peer)
                except (EOFError, ConnectionError):
                    continue
                except Exception as fault:
                    self._faults.put(fault)

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        if not self._faults.empty():
            raise self._faults.get()


@contextlib.contextmanager
def scripted(script: Callable[[Peer], None], **options: Any) -> Iterator[ScriptedRouter]:
    """A router that ends with the block."""
    router = ScriptedRouter(script, **options)
    try:
        yield router
    finally:
        router.end()


__all__ = ["CHANGED", "Peer", "ScriptedRouter", "scripted"]
