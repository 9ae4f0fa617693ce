"""HTTP as a downloader needs it: https only, redirects included; errors told apart by whether to try again."""

from __future__ import annotations

import email.message
import email.utils
import http.client
import io
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import IO
from urllib.parse import urlsplit

from xlmtrain import __version__
from xlmtrain.errors import DataError

BLOCK_BYTES = 1 << 18
AGAIN = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 600.0
# An answer that came; 416 says that there is nothing after the bytes that are here already.
Response = http.client.HTTPResponse | urllib.error.HTTPError
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


class Stopped(Exception):
    """The program is to end; what has come stays for the next time."""


class Transient(Exception):
    """It may work later: after ``seconds`` if the server said so."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class Client:
    """Opens addresses. Proxies come from the environment (``https_proxy``), certificates from the system or
    ``SSL_CERT_FILE``."""

    def __init__(self, schemes: Sequence[str] = ("https",), timeout: float = 60.0) -> None:
        """``timeout``: seconds without a byte after which a connection is given up."""
        self._schemes, self._timeout = schemes, timeout
        self.stop = threading.Event()
        self._opener = urllib.request.OpenerDirector()
        # Named one by one: the usual opener would also follow a redirect to ftp.
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(schemes),
        ):
            self._opener.add_handler(handler)

    def open(self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Response:
        """The answer, with status 200, 206 or 416.

        Raises Transient if it may work later, and DataError if it will not.
        """
        _check_scheme(url, self._schemes)
        # As it is stored: a checksum is of the file, not of what a server makes of it on the way.
        headers = {"User-Agent": f"xlmtrain/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        request = urllib.request.Request(url, headers=headers, method=method)
        try:
            response = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return error
            error.close()
            if error.code in AGAIN:
                raise Transient(f"{url}: {error.code} {error.reason}", _seconds(error.headers)) from None
            raise DataError(f"{url}: the server says {error.code} {error.reason}") from None
        except _NETWORK_ERRORS as error:
            raise _network_error(url, error) from error
        if response.status not in (200, 206):
            response.close()
            raise DataError(f"{url}: the server says {response.status} {response.reason}")
        return response

    def blocks(self, response: Response) -> Iterator[bytes]:
        """The body. Raises Transient where it breaks off, Stopped when ``stop`` is set."""
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                block = response.read(BLOCK_BYTES)
            except _NETWORK_ERRORS as error:
                raise Transient(f"{response.url}: broke off ({error or type(error).__name__})") from error
            if not block:
                return
            yield block

    def pause(self, failures: int, error: Transient) -> None:
        """Wait before trying again: as long as the server asks, else about 1, 2, 4, ... seconds."""
        seconds = error.seconds
        if seconds is None:
            seconds = min(2.0 ** max(failures - 1, 0), LONGEST_WAIT) * random.uniform(0.8, 1.2)
        if seconds > LONGEST_WAIT:
            raise DataError(f"{error}; the server asks to come back in {seconds:.0f} s: run the same command then")
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, unless ``stop`` is or gets set: then raises Stopped."""
        if self.stop.wait(seconds):
            raise Stopped


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other hosts, never to an address without encryption."""

    def __init__(self, schemes: Sequence[str]) -> None:
        self._schemes = schemes

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> IO[bytes] | None:
        """urllib would read the answer's body first, however long it is."""
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, self._schemes, f"{req.full_url}: redirected to ")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None:  # urllib turns HEAD into GET
            new.method = req.get_method()
        return new


def _check_scheme(url: str, schemes: Sequence[str], before: str = "") -> None:
    if urlsplit(url).scheme not in schemes:
        raise DataError(f"{before}{url}: refused, only {', '.join(schemes)} is taken")


def _network_error(url: str, error: Exception) -> Exception:
    """Transient, or DataError for what another try would not mend."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    if isinstance(cause, socket.gaierror):
        return DataError(f"{url}: {host} is not found ({cause}); is there a network? A proxy is named by https_proxy")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DataError(f"{url}: the certificate of {host} is not trusted ({cause.verify_message})")
    return Transient(f"{url}: cannot be reached ({cause or type(cause).__name__})")


def _seconds(headers: email.message.Message) -> float | None:
    """Retry-After: a number of seconds, or a date."""
    value = headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
