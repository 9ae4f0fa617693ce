"""A server on this machine that serves files well or badly, and keeps a list of what it was asked."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xlmtrain.download.client import Client


@dataclass
class Served:
    """A file, and how its server behaves. Each entry of ``cuts`` and ``errors`` is used up by one GET."""

    content: bytes
    etag: str | None = '"first"'
    ranges: bool = True
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    """Break off after so many bytes."""
    errors: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answer with a status and headers."""
    redirect: str | None = None
    endless: bool = False
    stall: bool = False
    """Once: keep silent after the headers."""


class Publisher:
    """``files`` by path; ``requests`` are (path, Range)."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        publisher = self

        class Handler(_Handler):
            owner = publisher

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"

    def serve(self, path: str, content: bytes, **behaviour: object) -> str:
        """Offer a file; returns its address."""
        self.files[path] = Served(content, **behaviour)  # type: ignore[arg-type]
        return self.url + path

    def gets(self) -> list[str | None]:
        """The Range of every GET."""
        return [wanted for _, wanted in self.requests]


@contextmanager
def publishing(certificate: Path | None = None) -> Iterator[Publisher]:
    publisher = Publisher(certificate)
    thread = threading.Thread(target=publisher.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield publisher
    finally:
        publisher.closing.set()
        publisher.server.shutdown()
        publisher.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Publisher

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = re.sub("^https?://[^/]*", "", self.path)  # a proxy is asked for a whole address
        self.owner.requests.append((path, self.headers["Range"]))
        self.owner.headers.append(dict(self.headers))
        served = self.owner.files.get(path)
        if served is None:
            self.send_error(404)
        elif served.redirect is not None:
            self._headers(302, {"Location": served.redirect, "Content-Length": "0"})
        elif served.errors:
            status, headers = served.errors.pop(0)
            self._headers(status, {"Content-Length": "0", **headers})
        else:
            self._file(served)

    def _file(self, served: Served) -> None:
        content, status, headers = served.content, 200, {}
        if served.etag:
            headers["ETag"] = served.etag
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if wanted and served.ranges and self.headers["If-Range"] in (None, served.etag):
            offset = int(wanted[1])
            if offset >= len(content):
                self._headers(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {offset}-{len(content) - 1}/{len(content)}"
            content, status = content[offset:], 206
        if served.length and not served.endless:
            headers["Content-Length"] = str(len(content))
        self._headers(status, headers)
        if served.stall:
            served.stall = False
            self.owner.closing.wait(10)
            return
        try:
            while served.endless:
                self.wfile.write(bytes(1 << 16))
            self.wfile.write(content[: served.cuts.pop(0)] if served.cuts else content)
        except OSError:
            pass  # the client has had enough

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Hurried(Client):
    """Takes http from this machine, and notes how long it would have waited."""

    def __init__(self, timeout: float = 10.0) -> None:
        super().__init__(schemes=("http",), timeout=timeout)
        self.waited: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


def make_certificate(directory: Path) -> Path:
    """A key and its certificate for this machine, made for the occasion."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    key, certificate, both = (directory / name for name in ("key.pem", "certificate.pem", "both.pem"))
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
