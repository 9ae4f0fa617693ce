"""One file over HTTP, from a server that breaks off, lies, or sends elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.support.programs import free_port
from tests.support.publisher import Hurried, Publisher, make_certificate, publishing
from xlmtrain.download.catalogue import RemoteFile
from xlmtrain.download.client import ATTEMPTS, Client
from xlmtrain.download.fetch import DownloadRecord, fetch, published_checksum
from xlmtrain.errors import DataError

CONTENT = bytes(range(256)) * 5000  # more than a few blocks
HALF = len(CONTENT) // 2
LIMIT = 10_000_000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as server:
        yield server


@pytest.fixture
def client() -> Hurried:
    return Hurried()


def checksum(content: bytes = CONTENT) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def get(client: Client, remote: RemoteFile, target: Path, known: DownloadRecord | None = None) -> DownloadRecord:
    return fetch(client, remote, target, known)


def interrupted(client: Hurried, publisher: Publisher, url: str, target: Path) -> None:
    """Leave half of the file behind, as a program does that is killed."""

    class Killed(Exception):
        pass

    def die(_: float) -> None:
        raise Killed

    publisher.files["/file"].cuts.append(HALF)
    wait, client.wait = client.wait, die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        get(client, RemoteFile(url, LIMIT), target)
    client.wait = wait  # type: ignore[method-assign]
    assert target.with_name("file.part").stat().st_size == HALF
    assert not target.exists()
    publisher.requests.clear()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", None])
def test_a_file_comes_whole_and_verified(
    client: Hurried, publisher: Publisher, tmp_path: Path, algorithm: str | None
) -> None:
    url = publisher.serve("/file", CONTENT)
    published = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}" if algorithm else None
    fetched = get(client, RemoteFile(url, LIMIT, len(CONTENT), published), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert fetched == DownloadRecord(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert publisher.headers[0]["User-Agent"].startswith("xlmtrain/")
    assert publisher.headers[0]["Accept-Encoding"] == "identity"


def test_broken_off_is_resumed(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT, cuts=[1000, 2000, 3000, 4000, 5000, 6000, 7000])
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert publisher.gets()[:4] == [None, "bytes=1000-", "bytes=3000-", "bytes=6000-"]
    assert [headers.get("If-Range") for headers in publisher.headers[:2]] == [None, '"first"']
    assert len(publisher.gets()) == 8  # more than ATTEMPTS: each brought something


def test_the_next_run_resumes(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT)
    interrupted(client, publisher, url, tmp_path / "file")
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert publisher.gets() == [f"bytes={HALF}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("behaviour", [{"etag": '"second"'}, {"ranges": False}, {"etag": None}])
def test_what_cannot_be_resumed_starts_anew(
    client: Hurried, publisher: Publisher, tmp_path: Path, behaviour: dict[str, object]
) -> None:
    """Another version there, a server without ranges, one without marks of versions."""
    interrupted(client, publisher, publisher.serve("/file", CONTENT), tmp_path / "file")
    other = CONTENT[::-1]
    url = publisher.serve("/file", other, **behaviour)
    get(client, RemoteFile(url, LIMIT, checksum=checksum(other)), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == other


def test_a_weak_mark_of_a_version_is_none(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    """It may stand for files that differ in bytes (RFC 9110, 8.8.1); with a checksum parts can be put together."""
    url = publisher.serve("/file", CONTENT, etag='W/"first"', cuts=[HALF])
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    publisher.files["/file"].cuts.append(HALF)
    get(client, RemoteFile(url, LIMIT, checksum=checksum()), tmp_path / "file")
    assert publisher.gets() == [None, None, None, f"bytes={HALF}-"]


def test_parts_of_two_versions_are_found_out(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    """A server that appends another version under the same mark: seen by the checksum, and fetched once more."""
    interrupted(client, publisher, publisher.serve("/file", CONTENT), tmp_path / "file")
    other = CONTENT[::-1]
    url = publisher.serve("/file", other)
    get(client, RemoteFile(url, LIMIT, checksum=checksum(other)), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == other
    assert publisher.gets() == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": "elsewhere", "validator": "x", "total": 1}'])
def test_a_beginning_of_who_knows_what_is_not_used(
    client: Hurried, publisher: Publisher, tmp_path: Path, note: str
) -> None:
    url = publisher.serve("/file", CONTENT)
    (tmp_path / "file.part").write_bytes(b"something else")
    (tmp_path / "file.part.json").write_text(note)
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert publisher.gets() == [None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_nothing_left_to_come(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming: the server answers 416."""
    url = publisher.serve("/file", CONTENT)
    interrupted(client, publisher, url, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(CONTENT)
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert publisher.gets() == [f"bytes={len(CONTENT)}-"]


def test_more_here_than_there(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    """416 because the file is shorter now: from the start."""
    url = publisher.serve("/file", CONTENT)
    interrupted(client, publisher, url, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert publisher.gets() == [f"bytes={len(CONTENT) + 4}-", None]


def refused(
    client: Client, remote: RemoteFile, target: Path, message: str, known: DownloadRecord | None = None
) -> None:
    """The download is refused with ``message`` and leaves nothing."""
    with pytest.raises(DataError, match=message):
        get(client, remote, target, known)
    assert list(target.parent.iterdir()) == []


def test_a_wrong_checksum_is_refused(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT)
    wrong = checksum(b"other")
    refused(client, RemoteFile(url, LIMIT, checksum=wrong), tmp_path / "file", f"should have {wrong[7:]}; removed")
    assert len(publisher.gets()) == 1


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_wrong_size_is_refused(
    client: Hurried, publisher: Publisher, tmp_path: Path, size: int, length: bool
) -> None:
    url = publisher.serve("/file", CONTENT, length=length)
    message = "in the catalogue" if length or size > len(CONTENT) else "sends more than"
    refused(client, RemoteFile(url, LIMIT, size), tmp_path / "file", message)


def test_more_than_the_limit_is_refused_before_it_comes(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT)
    refused(client, RemoteFile(url, 1000), tmp_path / "file", "more than the limit of 1,000; refused")


def test_a_body_without_end_is_refused(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", b"", endless=True)
    refused(client, RemoteFile(url, 1_000_000), tmp_path / "file", "sends more than 1,000,000 bytes; refused")


def test_a_changed_file_is_compared_with_the_last_time(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT)
    known = get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert get(client, RemoteFile(url, LIMIT), tmp_path / "file", known) == known
    (tmp_path / "file").unlink()
    publisher.serve("/file", CONTENT[::-1])
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", "is not what it was the last time", known)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(client: Hurried, publisher: Publisher, tmp_path: Path, status: int) -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=300), usegmt=True)
    errors = [(status, {"Retry-After": "7"}), (status, {"Retry-After": date}), (status, {}), (status, {})]
    url = publisher.serve("/file", CONTENT, errors=errors)
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert client.waited[0] == 7.0
    assert 200 < client.waited[1] <= 300
    assert 3 < client.waited[2] < 5 < client.waited[3] < 10  # 4 and 8, give or take


def test_a_server_that_stays_busy_is_left(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT, errors=[(503, {})] * 100)
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", f"gave up after {ATTEMPTS} tries: run the same command")
    assert len(publisher.gets()) == ATTEMPTS


def test_a_long_wait_is_the_users(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT, errors=[(429, {"Retry-After": "86400"})])
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", "asks to wait [0-9]+ s or more")
    assert client.waited == []


@pytest.mark.parametrize("status", [401, 403, 410])
def test_a_refusal_is_final(client: Hurried, publisher: Publisher, tmp_path: Path, status: int) -> None:
    url = publisher.serve("/file", CONTENT, errors=[(status, {})])
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", f"the server says {status}")
    assert len(publisher.gets()) == 1


def test_a_missing_file(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    refused(client, RemoteFile(publisher.url + "/none", LIMIT), tmp_path / "file", "the server says 404")


def test_a_silent_server_is_asked_again(publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT, stall=True)
    client = Hurried(timeout=0.2)
    get(client, RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(publisher.gets()) == 2


def test_nobody_there(client: Hurried, tmp_path: Path) -> None:
    refused(client, RemoteFile(f"http://127.0.0.1:{free_port()}/file", LIMIT), tmp_path / "file", "cannot be reached")


def test_no_network(client: Hurried, tmp_path: Path) -> None:
    refused(client, RemoteFile("http://corpora.invalid/file", LIMIT), tmp_path / "file", "corpora.invalid is not found")
    assert client.waited == []


def test_wikipedias_checksums_are_under_a_date(client: Hurried, publisher: Publisher) -> None:
    digests = {name: hashlib.sha1(name.encode()).hexdigest() for name in ("meta", "articles", "links")}
    listed = [
        f"{digests['meta']}  dewiki-20261101-pages-meta.xml.bz2",
        f"{digests['articles']}  dewiki-20261101-pages-articles.xml.bz2",
        f"{digests['links']}  dewiki-20261101-pages-articles.xml.bz2-links",
    ]
    sums = publisher.serve("/sums", "\n".join(listed).encode() + b"\n", errors=[(503, {})])
    remote = RemoteFile("http://x/dewiki/latest/dewiki-latest-pages-articles.xml.bz2", LIMIT, sums=sums)
    assert published_checksum(client, remote).checksum == f"sha1:{digests['articles']}"
    with pytest.raises(DataError, match=r"has no checksum of enwiki-latest"):
        published_checksum(client, RemoteFile("http://x/enwiki-latest-pages-articles.xml.bz2", LIMIT, sums=sums))
    endless = publisher.serve("/endless", b"", endless=True)
    with pytest.raises(DataError, match="more than 1,048,576 bytes"):
        published_checksum(client, RemoteFile("http://x/y", LIMIT, sums=endless))


def test_redirects_are_followed(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    with publishing() as other:
        url = publisher.serve("/file", b"", redirect=other.serve("/there", CONTENT, cuts=[HALF]))
        get(client, RemoteFile(url, LIMIT), tmp_path / "file")
        assert other.gets() == [None, f"bytes={HALF}-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_redirects_that_go_round_end(client: Hurried, publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", b"", redirect="/file")
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", "more than 10 redirects")


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/file", "file:///etc/hostname", "https://127.0.0.1/file"])
def test_redirects_to_other_schemes_are_refused(
    client: Hurried, publisher: Publisher, tmp_path: Path, target: str
) -> None:
    url = publisher.serve("/file", b"", redirect=target)
    refused(client, RemoteFile(url, LIMIT), tmp_path / "file", "refused, only http is allowed")


def test_by_default_nothing_goes_unencrypted(publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.serve("/file", CONTENT)
    refused(Client(), RemoteFile(url, LIMIT, checksum=checksum()), tmp_path / "file", "refused, only https is allowed")
    assert publisher.requests == []


def test_a_proxy_is_used(
    client: Hurried, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", publisher.url)
    publisher.serve("/file", CONTENT)
    get(Hurried(), RemoteFile("http://corpora.invalid/file", LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_encrypted_as_in_life(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client as it is by default: it takes https, wants a known certificate, and is not led to http."""
    with publishing(certificate) as secure, publishing() as plain:
        url = secure.serve("/file", CONTENT)
        refused(Client(), RemoteFile(url, LIMIT), tmp_path / "file", "the certificate of 127.0.0.1 is not trusted")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        led_astray = secure.serve("/other", b"", redirect=plain.serve("/file", CONTENT))
        right = RemoteFile(led_astray, LIMIT, len(CONTENT), checksum())
        refused(Client(), right, tmp_path / "file", f"{plain.url}/file: refused, only https is allowed")
        assert plain.requests == []
        get(Client(), RemoteFile(url, LIMIT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
