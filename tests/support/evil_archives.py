"""Archives that nobody should unpack: each holds the harmless ``text.de`` too, before or after what is wrong."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

TEXT = b"Guten Tag.\nAuf Wiedersehen.\n"
WANTED = "text.de"
TOO_MANY = 1000
ODD_NAMES = (
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "..",
    "C:evil",
    "a\\..\\evil",
    "new\nline",
    "zero\x01",
    "\x1b[2J",
    "",
)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


def _tar(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))


def _with_text(*members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT, last: bool = False) -> Callable[[Path], None]:
    text = [(_member(WANTED, size=len(TEXT)), TEXT)]
    rest = [(member, bytes(member.size)) for member in members]
    return lambda path: _tar(path, rest + text if last else text + rest, form)


def _zip(*names: str, mode: int = 0, content: bytes = b"x") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(WANTED, TEXT)
            for name in names:
                information = zipfile.ZipInfo(name)
                information.external_attr = mode << 16
                information.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(information, content)

    return write


def _patched_zip(find: bytes, put: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        _zip("othr.de")(path)
        path.write_bytes(path.read_bytes().replace(find, put))

    return write


def _raw_tar(*blocks: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(gzip.compress(b"".join(blocks) + bytes(1024)))


def _header(name: str, kind: bytes, size: bytes) -> bytes:
    """A tar header with a size that tarfile would not write."""
    block = bytearray(_member(name, kind).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    return bytes(block)


def _negative(value: int) -> bytes:
    return b"\xff" + (value + (1 << 88)).to_bytes(11, "big")


def _sparse() -> tarfile.TarInfo:
    member = _member("sparse")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 50),
    }
    return member


def _bomb(path: Path) -> None:
    """A gigabyte by its header, more zeros than the tests let pass by what is in it."""
    with gzip.open(path, "wb", 1) as file:
        file.write(_member(WANTED, size=1 << 30).tobuf())
        for _ in range(2):
            file.write(bytes(1 << 24))


def _cut(path: Path) -> None:
    _with_text()(path)
    path.write_bytes(path.read_bytes()[:-12])


def _wrong_crc(path: Path) -> None:
    """Right up to the end mark and long after it."""
    _with_text()(path)
    content = gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 20))
    path.write_bytes(content[:-8] + struct.pack("<I", 1) + content[-4:])


def _long_header() -> tarfile.TarInfo:
    member = _member("commented")
    member.pax_headers = {"comment": "x" * (2 << 20)}
    return member


TARS: dict[str, Callable[[Path], None]] = {
    **{f"tar-name-{number}": _with_text(_member(name)) for number, name in enumerate(ODD_NAMES)},
    "tar-odd-name-first": _with_text(_member("../../evil"), last=True),
    "tar-odd-name-pax": _with_text(_member("../" * 60 + "evil"), form=tarfile.PAX_FORMAT),
    "tar-odd-directory": _with_text(_member("../up", tarfile.DIRTYPE)),
    "tar-symlink": _with_text(_member("link", tarfile.SYMTYPE, "/etc/passwd")),
    "tar-symlink-as-wanted": lambda path: _tar(path, [(_member(WANTED, tarfile.SYMTYPE, "/etc/hostname"), b"")]),
    "tar-hardlink-to-symlink": _with_text(
        _member("a", tarfile.SYMTYPE, "/etc/passwd"), _member(WANTED + "2", tarfile.LNKTYPE, "a"), last=True
    ),
    "tar-hardlink": _with_text(_member("b", tarfile.LNKTYPE, WANTED)),
    "tar-character-device": _with_text(_member("zero", tarfile.CHRTYPE)),
    "tar-block-device": _with_text(_member("disk", tarfile.BLKTYPE)),
    "tar-fifo": _with_text(_member("pipe", tarfile.FIFOTYPE)),
    "tar-unknown-type": _with_text(_member("what", b"Z")),
    "tar-sparse": _with_text(_sparse(), form=tarfile.PAX_FORMAT),
    "tar-duplicate": _with_text(_member(WANTED)),
    "tar-duplicate-in-disguise": _with_text(_member("./a"), _member("a"), last=True),
    "tar-bomb": _bomb,
    "tar-huge-header": _raw_tar(_header("x", tarfile.XHDTYPE, b"77777777777\0"), bytes(4096)),
    "tar-long-header": _with_text(_long_header(), form=tarfile.PAX_FORMAT),
    "tar-negative-size": _raw_tar(_header(WANTED, tarfile.REGTYPE, _negative(-512))),
    "tar-negative-header": _raw_tar(_header("x", tarfile.XHDTYPE, _negative(-1024))),
    "tar-too-many": _with_text(*(_member(f"f{number}") for number in range(TOO_MANY))),
    "tar-cut": _cut,
    "tar-wrong-crc": _wrong_crc,
    "tar-not-one": lambda path: path.write_bytes(b"<html>404</html>" * 100),
}  # fmt: skip
ZIPS: dict[str, Callable[[Path], None]] = {
    **{f"zip-name-{number}": _zip(name) for number, name in enumerate(ODD_NAMES) if name != ".."},
    "zip-symlink": _zip("link", mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd"),
    "zip-device": _zip("zero", mode=stat.S_IFCHR | 0o666),
    "zip-duplicate": _patched_zip(b"othr.de", WANTED.encode()),
    "zip-encrypted": _patched_zip(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
    "zip-bomb": _zip(*(f"zeros{number}" for number in range(2)), content=bytes(1 << 24)),
    "zip-too-many": _zip(*(f"f{number}" for number in range(TOO_MANY)), content=b""),
    "zip-wrong-crc": lambda path: path.write_bytes(_with_wrong_crc()),
    "zip-not-one": lambda path: path.write_bytes(b"<html>404</html>" * 100),
}  # fmt: skip


def _with_wrong_crc() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(WANTED, TEXT)
    return buffer.getvalue().replace(TEXT, TEXT.replace(b"Guten", b"Guden"))
