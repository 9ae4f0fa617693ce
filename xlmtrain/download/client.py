"""HTTPS for downloads: no unencrypted address is opened, and errors are classified by whether to try again."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, NameResolutionError
from urllib3.util import Retry

from xlmtrain import __version__
from xlmtrain.errors import DataError

T = TypeVar("T")
BLOCK_BYTES = 1 << 18
ATTEMPTS = 5  # in a row without a new byte
REDIRECTS = 10
LONGEST_WAIT = 600.0
RETRYABLE_STATUS = (408, 425, 429, 500, 502, 503, 504)


class RetryableError(Exception):
    """A request failed, but may succeed later: after ``seconds`` if the server said so."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class Client:
    """An HTTP session. Proxies come from ``https_proxy``, certificates from the system or ``SSL_CERT_FILE``."""

    def __init__(self, schemes: Sequence[str] = ("https",), timeout: float = 60.0) -> None:
        """``timeout``: seconds without a byte after which a connection is given up."""
        self._schemes, self._timeout = schemes, timeout
        self._session = requests.Session()
        self._verify = ssl.get_default_verify_paths().cafile or True
        # A checksum is of the stored file, so the server must not compress it on the way.
        self._session.headers.update({"User-Agent": f"xlmtrain/{__version__}", "Accept-Encoding": "identity"})

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Return the response to a GET, with status 200, 206 or 416 and its body unread.

        Raises RetryableError if it may succeed later, DataError if it will not.
        """
        for _ in range(REDIRECTS):
            if urlsplit(url).scheme not in self._schemes:
                raise DataError(f"{url}: refused, only {', '.join(self._schemes)} is allowed")
            response = self._get(url, headers)
            if not response.is_redirect:
                return _checked(response)
            response.close()  # without reading its body, which may have no end
            url = urljoin(url, response.headers["Location"])
        raise DataError(f"{url}: more than {REDIRECTS} redirects")

    def blocks(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body as it was sent. Raises RetryableError where it breaks off."""
        while True:
            try:
                block = response.raw.read1(BLOCK_BYTES, decode_content=False)
            except (HTTPError, OSError) as error:
                raise RetryableError(f"{response.url}: broke off ({error or type(error).__name__})") from error
            if not block:
                return
            yield block

    def read(self, url: str, limit: int) -> bytes:
        """Return a body of at most ``limit`` bytes. Raises DataError."""

        def attempt() -> bytes:
            content = b""
            with closing(self.open(url)) as response:
                for block in self.blocks(response):
                    content += block
                    if len(content) > limit:
                        raise DataError(f"{url}: more than {limit:,} bytes; refused")
            return content

        return self.retry(attempt, lambda: 0)

    def retry(self, attempt: Callable[[], T], received: Callable[[], int]) -> T:
        """Return the result of ``attempt``, which is repeated after a RetryableError.

        It waits as long as the server asks, else about 1, 2, 4, ... seconds. Raises DataError after ATTEMPTS failures
        without more bytes ``received`` than ever, or if the server asks for a longer wait than LONGEST_WAIT.
        """
        failures, largest = 0, received()
        while True:
            try:
                return attempt()
            except RetryableError as error:
                failures = 1 if received() > largest else failures + 1
                largest = max(largest, received())
                self._pause(failures, error)

    def _pause(self, failures: int, error: RetryableError) -> None:
        if failures >= ATTEMPTS:
            raise DataError(f"{error}; gave up after {failures} tries: run the same command again to go on") from error
        seconds = 2.0 ** (failures - 1) * random.uniform(0.8, 1.2) if error.seconds is None else error.seconds
        if seconds > LONGEST_WAIT:
            raise DataError(f"{error}; the server asks to wait {seconds:.0f} s or more: run the same command then")
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def _get(self, url: str, headers: Mapping[str, str] | None) -> requests.Response:
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=self._timeout, verify=self._verify
            )
        except requests.RequestException as error:
            host = urlsplit(url).hostname
            if isinstance(getattr(error.args[0] if error.args else None, "reason", None), NameResolutionError):
                raise DataError(f"{url}: {host} is not found; is there a network? https_proxy names a proxy") from error
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise DataError(f"{url}: the certificate of {host} is not trusted ({error})") from error
            raise RetryableError(f"{url}: cannot be reached ({error})") from error


def _checked(response: requests.Response) -> requests.Response:
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    message = f"{response.url}: the server says {response.status_code} {response.reason}"
    if response.status_code not in RETRYABLE_STATUS:
        raise DataError(message)
    seconds = None
    with suppress(InvalidHeader):
        seconds = Retry().get_retry_after(response.raw)
    raise RetryableError(message, seconds)
