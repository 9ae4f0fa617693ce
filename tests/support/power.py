"""A disk that loses power: file operations as they happened, and what may be left of them.

What a crash may leave: of each file the content at its last fsync, or any beginning of what it held later; of each
directory the entries at its last fsync, and any number of the changes since, in their order, a rename being one.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

_CHANGES = ("replace", "rename", "mkdir", "unlink", "remove", "rmdir")


@dataclass
class _File:
    content: bytes = b""
    synced: bytes = b""


@dataclass
class _Directory:
    """``entries``: name -> identity, as of now. ``pending``: the changes since the last fsync, each a few at once."""

    entries: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[dict[str, int | None]] = field(default_factory=list)


_Nodes = dict[int, "_File | _Directory"]


class Disk:
    """What was written below ``root``, and what of it was safe, after each operation; ``operations`` of them."""

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, threading.RLock()
        self._nodes: _Nodes = {0: _Directory()}
        self._known: dict[int, int] = {}  # inode -> identity; inodes are used again, identities are not
        self._stamps: dict[int, tuple[int, int]] = {}
        self._next = 1
        self._recorded: list[_Nodes] = []

    @property
    def operations(self) -> int:
        """Operations so far."""
        return len(self._recorded)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Follow the file operations of this process."""

        def followed(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with self._lock:
                    result = original(*arguments, **options)
                    self._look()
                    self._recorded.append(deepcopy(self._nodes))
                    return result

            return call

        def synced(original: Callable[[int], None]) -> Callable[[int], None]:
            def call(descriptor: int) -> None:
                with self._lock:
                    original(descriptor)
                    self._look()
                    self._sync(os.fstat(descriptor).st_ino)
                    self._recorded.append(deepcopy(self._nodes))

            return call

        self._look()
        for node in self._nodes.values():  # what was there before is safe
            self._make_safe(node)
        patches = [mock.patch.object(os, name, followed(getattr(os, name))) for name in _CHANGES]
        patches.append(mock.patch.object(os, "fsync", synced(os.fsync)))
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def crash(self, moment: int, target: Path, rng: random.Random | None) -> None:
        """Write to ``target`` what is left: without ``rng`` only what was safe, else chance decides of the rest."""
        _write(self._recorded[moment], 0, target, rng)

    def _look(self) -> None:
        """Take note of what has changed since the last operation."""
        seen: set[int] = set()
        self._visit(self._root, self._nodes[0], seen)
        self._known = {inode: identity for inode, identity in self._known.items() if inode in seen}

    def _visit(self, path: Path, node: _File | _Directory, seen: set[int]) -> None:
        assert isinstance(node, _Directory)
        now: dict[str, int] = {}
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            inode = entry.inode()
            seen.add(inode)
            if inode not in self._known:
                self._known[inode] = self._next
                self._nodes[self._next] = _Directory() if entry.is_dir() else _File()
                self._next += 1
            now[entry.name] = self._known[inode]
            child = self._nodes[self._known[inode]]
            if isinstance(child, _File):
                stamp = (entry.stat().st_size, entry.stat().st_mtime_ns)
                if self._stamps.get(now[entry.name]) != stamp:
                    child.content = Path(entry.path).read_bytes()
                    self._stamps[now[entry.name]] = stamp
            else:
                self._visit(Path(entry.path), child, seen)
        names = node.entries.keys() | now.keys()
        change = {name: now.get(name) for name in names if node.entries.get(name) != now.get(name)}
        if change:
            node.pending.append(change)
        node.entries = now

    def _sync(self, inode: int) -> None:
        if inode == self._root.stat().st_ino:
            self._make_safe(self._nodes[0])
        elif inode in self._known:
            self._make_safe(self._nodes[self._known[inode]])

    def _make_safe(self, node: _File | _Directory) -> None:
        if isinstance(node, _File):
            node.synced = node.content
        else:
            node.synced, node.pending = dict(node.entries), []


def _write(nodes: _Nodes, identity: int, target: Path, rng: random.Random | None) -> None:
    node = nodes[identity]
    if isinstance(node, _File):
        content = node.synced
        if rng is not None and node.content != node.synced:
            whole = node.content
            content = rng.choice([node.synced, whole, whole[: rng.randrange(len(whole) + 1)]])
        target.write_bytes(content)
        return
    target.mkdir()
    entries: dict[str, int | None] = dict(node.synced)
    for change in node.pending[: 0 if rng is None else rng.randrange(len(node.pending) + 1)]:
        entries |= change
    for name, child in entries.items():
        if child is not None:
            _write(nodes, child, target / name, rng)
