"""Try what xlmtrain/download promises on mtdata, with the servers and archives of our own tests.

python3 -m venv build/mtdata && build/mtdata/bin/pip install mtdata==0.5.1 pytest tqdm
MTDATA=build/mtdata/cache PYTHONPATH=. build/mtdata/bin/python docs/decisions/downloader_mtdata.py
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import resource
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mtdata.cache
import mtdata.parser
import mtdata.sgm
import mtdata.tmx
import requests
import urllib3
from mtdata.entry import Entry

from tests.support import evil_archives, samples
from tests.support.publisher import Publisher, make_certificate, publishing

logging.disable(logging.CRITICAL)
urllib3.disable_warnings()
CONTENT = bytes(range(256)) * 5000
HALF = len(CONTENT) // 2


def attempt(action: Callable[[], object]) -> str:
    """Return what came of ``action``, in a few words."""
    try:
        return f"accepted ({str(action())[:60]})"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]}"


@contextlib.contextmanager
def server(certificate: Path | None = None) -> Iterator[tuple[Publisher, mtdata.cache.Cache, Path]]:
    """Yield a server, an empty mtdata cache and the place where ``/file`` is stored in it."""
    with publishing(certificate) as publisher, tempfile.TemporaryDirectory() as directory:
        cache = mtdata.cache.Cache(Path(directory))
        yield publisher, cache, cache.get_local_path(f"{publisher.url}/file", fix_missing=False)


def transfers() -> None:
    """Try downloads that are cut, too large, changed or led to plain http."""
    with server() as (publisher, cache, place):
        url = publisher.serve("/file", CONTENT, cuts=[HALF])
        print("cut, with Content-Length:", attempt(lambda: cache.download(url, place)))
        print("  left under the final name:", place.exists() and place.stat().st_size, "of", len(CONTENT))
        cache.download(url, place)
        print("  Range of each request:", publisher.gets(), "(None: everything again)")
    with server() as (publisher, cache, place):
        url = publisher.serve("/file", CONTENT, cuts=[HALF], length=False)
        print("cut, without Content-Length:", attempt(lambda: cache.download(url, place).stat().st_size))
    with server() as (publisher, cache, place):
        url = publisher.serve("/file", b"", endless=True)
        print("body without end:", attempt(lambda: cache.download(url, place)), f"after {place.stat().st_size:,} bytes")
    with server() as (publisher, cache, place):
        url = publisher.serve("/file", CONTENT)
        print("plain http:", attempt(lambda: cache.download(url, place).stat().st_size))
    print("fields of an Entry that could hold a checksum or size:", Entry.__slots__)
    with tempfile.TemporaryDirectory() as directory:
        certificate = make_certificate(Path(directory))
        with server(certificate) as (secure, cache, place), publishing() as plain:
            url = secure.serve("/file", b"", redirect=plain.serve("/file", CONTENT))
            size = attempt(lambda: cache.download(url, place).stat().st_size)
            print("certificate that is not trusted, then a redirect to http:", size, "asked:", plain.gets())
            print("  the same by requests:", attempt(lambda: requests.get(url, timeout=5)))


def archives() -> None:
    """Try the hostile archives; count those that are refused before their text is used."""
    outcomes: Counter[str] = Counter()
    accepted = []
    cases = [(".tgz", *case) for case in evil_archives.TARS.items()]
    for ending, name, write in cases + [(".zip", *case) for case in evil_archives.ZIPS.items()]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "a", "b", "archive" + ending)
            path.parent.mkdir(parents=True)
            write(path)
            entry = Entry("G-n-1-de", f"https://x/archive{ending}", in_paths=["text.de"], in_ext="txt")

            def read(path: Path = path, entry: Entry = entry) -> int:
                paths = mtdata.cache.Cache(path.parent).get_local_in_paths(path, entry)
                return len(list(mtdata.parser.Parser(paths, ext="txt", ent=entry).read_segs(show_pbar=False)))

            result = attempt(read)
            outcomes[result.split(" (")[0].split(":")[0]] += 1
            accepted += [name] if result.startswith("accepted") else []
            unpacked = list((path.parent / "archive.tgz-extracted").rglob("*"))
            outcomes["unpacked"] += bool(unpacked)
            outcomes["made a device"] += any(p.is_block_device() or p.is_char_device() for p in unpacked)
    print("hostile archives:", dict(outcomes), "accepted:", ", ".join(accepted))


def formats() -> None:
    """Try the readers of TMX, SGM and TSV."""
    with tempfile.TemporaryDirectory() as directory:
        tmx, sgm, tsv = (Path(directory, name) for name in ("x.tmx", "x.sgm", "x.tsv.gz"))
        tmx.write_bytes(samples.LAUGHS.replace(b"</tu>", b'<tuv xml:lang="de"><seg>x</seg></tuv></tu>'))
        print("TMX that declares entities:", attempt(lambda: list(mtdata.tmx.read_tmx(tmx, ("en", "de")))))
        tmx.write_bytes(samples.TMX)
        print("TMX with inline codes:", attempt(lambda: list(mtdata.tmx.read_tmx(tmx, ("de", "en")))[1]))
        sgm.write_bytes(samples.sgm(samples.GERMAN, "src"))
        print("SGM, segments found of 3:", attempt(lambda: len(list(mtdata.sgm.read_sgm(sgm)))))
        tsv.write_bytes(gzip.compress(b"Guten Tag.\tGood day.\none column\n"))
        entry = Entry("G-n-1-de-en", "https://x/x.tsv.gz")
        reader = mtdata.parser.Parser(tsv, ent=entry)
        print("TSV with a short line:", attempt(lambda: list(reader.read_segs(show_pbar=False))))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000_000, 200_000_000))  # the body without end has to end somewhere
    transfers()
    archives()
    formats()
