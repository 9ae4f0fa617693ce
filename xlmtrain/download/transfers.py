"""Many files at once: what is missing is looked up, room is asked for, then all are fetched side by side."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from xlmtrain.download.catalogue import AS_IS, Corpus, Remote
from xlmtrain.download.client import Client
from xlmtrain.download.fetch import fetch, part_size, published_checksum, remote_size
from xlmtrain.download.ledger import Ledger
from xlmtrain.errors import DataError
from xlmtrain.runtime.progress import ProgressBar

PER_HOST = 2  # connections; Wikimedia's servers allow an address no more


@dataclass(frozen=True)
class Transfer:
    """A file to fetch, where to, and the bytes that are still to come."""

    remote: Remote
    path: Path
    left: int


def local_paths(corpus: Corpus, output: Path) -> list[Path]:
    """Where the files of a corpus go. No server has a say in it."""
    if corpus.format in AS_IS:
        return [output / name for name in corpus.texts()]
    parts = [urlsplit(file.url) for file in corpus.files]
    return [output / "downloads" / re.sub(r"[^A-Za-z0-9.-]+", "_", part.netloc + part.path) for part in parts]


def fetch_all(corpora: Sequence[Corpus], output: Path, ledger: Ledger, client: Client, parallel: int) -> dict[str, str]:
    """Download what is missing, ``parallel`` files at a time; returns address -> what went wrong.

    Raises DataError if there is no room for it.
    """
    failed: dict[str, str] = {}
    transfers: dict[str, Transfer] = {}
    room = 0
    for corpus in corpora:
        for file, path in zip(corpus.files, local_paths(corpus, output)):
            if file.url in transfers or file.url in failed or _is_here(path, ledger, file.url):
                continue
            try:
                remote = published_checksum(client, file)
                size = remote_size(client, remote)
            except DataError as error:
                failed[file.url] = str(error)
                continue
            transfers[file.url] = Transfer(remote, path, max(size - part_size(path), 0))
            # The text that is read out of an archive takes about as much again.
            room += transfers[file.url].left + (0 if corpus.format in AS_IS else size)
    free = shutil.disk_usage(output).free
    if room > free:
        raise DataError(
            f"output={output}: {room / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "take another place, or fewer corpora"
        )
    return failed | _in_threads(list(transfers.values()), ledger, client, parallel)


def _is_here(path: Path, ledger: Ledger, url: str) -> bool:
    known = ledger.known(url)
    return known is not None and path.exists() and path.stat().st_size == known.size


def _in_threads(transfers: Sequence[Transfer], ledger: Ledger, client: Client, parallel: int) -> dict[str, str]:
    failed: dict[str, str] = {}
    if not transfers:
        return failed
    hosts = {_host(transfer): threading.Semaphore(PER_HOST) for transfer in transfers}
    counting = threading.Lock()
    with ProgressBar("download", sum(transfer.left for transfer in transfers), "B") as progress:

        def advance(amount: int) -> None:
            with counting:
                progress.advance(amount)

        def run(transfer: Transfer) -> None:
            url = transfer.remote.url
            with hosts[_host(transfer)]:
                ledger.add_file(url, fetch(client, transfer.remote, transfer.path, ledger.known(url), advance))

        with ThreadPoolExecutor(parallel) as executor:
            futures = {executor.submit(run, transfer): transfer.remote.url for transfer in transfers}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except DataError as error:
                        failed[futures[future]] = str(error)
            except BaseException:  # Ctrl-C, a full disk: the others end with the block at hand, and can be resumed
                client.stop.set()
                executor.shutdown(cancel_futures=True)
                raise
    return failed


def _host(transfer: Transfer) -> str:
    return urlsplit(transfer.remote.url).netloc
