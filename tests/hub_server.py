"""A small hub on loopback, for tests of what the real huggingface_hub client does: it keeps repositories in memory.

`hub_server(repos)` starts it. `hub_client(hub, home)` of hub_client.py points the client of this process to it.

Like the real one it consists of two servers: the hub, and the store of large files, to which the hub redirects. They
have different origins, so a client must not send its token to the second. The store refuses requests with a token, and
those whose address was not signed by the hub.
"""

import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_api import Answer, Api, RefusedError, as_json
from hub_state import PIECE, Blob, Content, Fault, Hub, Repo, Request


@contextmanager
def hub_server(repos: Mapping[str, Repo | Mapping[str, Content]]) -> Iterator[Hub]:
    """Serve these repositories until the block ends; a mapping of files is a public one with one commit."""
    hub = Hub(repos)
    servers = [_Server(hub, origin) for origin in ("hub", "store")]
    hub.endpoint, hub.store_endpoint = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        server.thread.start()
    try:
        yield hub
    finally:
        hub.stopping.set()
        for server in servers:
            server.stop()
    if hub.errors:
        raise ExceptionGroup("the hub has errors", hub.errors)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = PIECE
    disable_nagle_algorithm = True
    server: "_Server"

    def log_message(self, *_: object) -> None:
        """Tests look at `requests`."""

    def handle_request(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.origin, self.command, unquote(url.path), parse_qs(url.query), headers)
        hub.requests.append(request)
        body = self._body()
        request.received = len(body)
        with hub.lock:
            hit = [fault for fault in hub.faults if fault.hits(request.method, request.path)]
        fault = hit[0] if hit else Fault("")
        for each in hit:
            each.call(hub)
        if fault.hang and fault.cut is None:
            hub.stopping.wait(fault.hang)
        if fault.close:
            self.close_connection = True
            return
        self._send(request, self._answer(request, body, fault), fault)

    def _answer(self, request: Request, body: bytes, fault: Fault) -> Answer:
        if fault.status:
            return as_json({"error": HTTPStatus(fault.status).phrase}, fault.status)
        try:
            return Api(self.server.hub, request, body).answer(urlsplit(self.path).path)
        except RefusedError as refused:
            return as_json({"error": str(refused)}, refused.status, refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815 (the names that the base class looks for)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, request: Request, answer: Answer, fault: Fault) -> None:
        start, end, headers = 0, answer.body.size, dict(answer.headers)
        status, asked = answer.status, None if fault.whole else _range(request.range, answer.body.size)
        if asked and status == HTTPStatus.OK:
            start, end = asked
            status = HTTPStatus.PARTIAL_CONTENT if start < end else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if fault.short is not None:
            end = min(end, start + fault.short)
        if status == HTTPStatus.PARTIAL_CONTENT:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{answer.body.size}"
        elif status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            start, end, headers["Content-Range"] = 0, 0, f"bytes */{answer.body.size}"
        request.status = int(status)
        self.send_response(status)
        for name, value in {"Content-Length": str(end - start), **headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method != "HEAD":
            self._send_body(request, answer.body, (start, end), fault)

    def _send_body(self, request: Request, body: Blob, span: tuple[int, int], fault: Fault) -> None:
        start, end = span
        flip = fault.flip
        for piece in body.pieces(start, end if fault.cut is None else min(end, start + fault.cut)):
            request.sent += len(piece)  # before it leaves: who has read all of it finds it counted
            self.wfile.write(bytes([piece[0] ^ 255]) + piece[1:] if flip and piece else piece)
            flip = False
        if fault.cut is not None:
            self.wfile.flush()
            self.server.hub.stopping.wait(fault.hang)
            self.close_connection = True


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; the same twice if the file has none of those."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not found or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    start = int(first)
    return (start, max(start, min(int(last) + 1, size))) if last else (start, max(start, size))


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, hub: Hub, origin: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.origin = hub, origin
        self.connections: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # not HTTPServer's, which asks for the name of the machine

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):  # clients may go
            self.hub.errors.append(error)

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self.connections):  # their clients may keep them open for other requests
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self.thread.join()
