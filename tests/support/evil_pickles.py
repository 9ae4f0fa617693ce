"""Pickles that do harm when they are unpickled, put together from the opcodes, and the containers they come in."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

LEGACY_START = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def program(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


ARRAY = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", raw(b"b"))


def live(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that make the file ``marker`` when they are unpickled, each with what its refusal must name, if any."""
    file, touch, code = text(str(marker)), text(f"touch {marker}"), text(f"open({str(marker)!r}, 'w').close()")
    system, partial, popen = name("os", "system"), name("functools", "partial"), name("subprocess", "Popen")
    harm, arguments = call(system, touch), b"(" + text("touch") + file + b"l"
    path = call(name("pathlib", "PosixPath"), file)
    imported = call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system"))
    late = call(partial, name("builtins", "print")) + b"(" + system + b"(" + touch + b"t}Ntb"
    minus = b"J\xff\xff\xff\xff"
    objects = call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
    objects += b"(K\x03" + text("|") + b"NNN" + minus + minus + b"K?tb"
    bodies = {
        "os.system": (harm, "os.system"),
        "posix.system": (call(name("posix", "system"), touch), "posix.system"),
        "subprocess": (call(name("subprocess", "check_call"), arguments), "subprocess.check_call"),
        "popen": (call(name("subprocess", "getoutput"), touch), "subprocess.getoutput"),
        "eval": (call(name("builtins", "eval"), code), "eval"),
        "exec": (call(name("builtins", "exec"), code), "exec"),
        "eval of Python 2": (call(name("__builtin__", "eval"), code), "eval"),
        "open": (call(name("builtins", "open"), file, text("w")), "open"),
        "io.open": (call(name("io", "open"), file, text("w")), "io.open"),
        "mkdir": (call(name("os", "mkdir"), file), "os.mkdir"),
        "getattr of an import": (call(imported, touch), "getattr"),
        "partial": (call(call(partial, system, touch)), "functools.partial"),
        "state of a partial": (call(late), "functools.partial"),
        "method caller": (call(call(name("operator", "methodcaller"), text("touch")), path), "operator.methodcaller"),
        "pickle in a pickle": (call(name("pickle", "loads"), raw(program(harm))), "pickle.loads"),
        "storage": (call(name("torch.storage", "_load_from_bytes"), raw(legacy(program(harm)))), "_load_from_bytes"),
        "array of objects": (ARRAY + b"(K\x01(K\x01t" + objects + b"\x89(" + harm + b"ltb", ""),
        "in a set": (b"(" + harm + b"\x91", "os.system"),
        "in an argument": (call(name("collections", "OrderedDict"), b"(" + harm + b"l"), ""),
        "in an attribute": (name("types", "SimpleNamespace") + b")\x81}" + text("a") + harm + b"sb", "SimpleNamespace"),
        "among harmless values": (b"}(" + text("epoch") + b"K\x01" + text("params") + harm + b"u", "os.system"),
        "in the attributes of a Dictionary": (b"}" + text("counts") + harm + b"s", "os.system"),
        "dropped": (harm + b"0}", "os.system"),
        "INST": (b"(" + touch + b"ios\nsystem\n", ""),
        "OBJ": (b"(" + popen + arguments + b"o", "subprocess.Popen"),
        "NEWOBJ_EX": (name("io", "FileIO") + b")}\x92" + harm + b"\x86", "io.FileIO"),
    }
    stacked = {
        "STACK_GLOBAL": text("os") + text("system") + b"\x93(" + touch + b"tR",
        "STACK_GLOBAL through a class": text("pathlib") + text("Path.touch") + b"\x93(" + path + b"tR",
        "STACK_GLOBAL from the memo": text("system") + b"\x940" + text("os") + b"h\x00\x93(" + touch + b"tR",
    }
    programs = {key: (program(body), named) for key, (body, named) in bodies.items()}
    return programs | {key: (program(body, 4), "") for key, body in stacked.items()}


def suspicious(marker: Path) -> dict[str, bytes]:
    """Pickles that are refused too, though they do nothing on this machine, or nothing that a test should see."""
    touch = text(f"touch {marker}")
    dictionary = name("xlm.data.dictionary", "Dictionary")
    encode = name("_codecs", "encode")
    bodies = {
        "webbrowser": call(name("webbrowser", "open"), text("http://localhost")),
        "code object": call(name("types", "CodeType"), *[b"K\x00"] * 6),
        "copyreg": call(
            name("copyreg", "_reconstructor"), name("subprocess", "Popen"), name("builtins", "object"), b"N"
        ),
        "extension registry": call(name("copyreg", "add_extension"), text("os"), text("system"), b"K\x07"),
        "DUP": b"}2",
        "EXT1": b"}\x82\x07",
        "EXT2": b"}\x83\x07\x01",
        "EXT4": b"}\x84\x07\x01\x01\x01",
        "PERSID": b"}Pposix.system\n",
        "BINPERSID": text("posix.system") + b"Q",
        "BINPERSID of a tuple": b"(" + text("module") + touch + b"tQ",
        "torch.load": call(name("torch.serialization", "load"), text(str(marker))),
        "torch.jit.load": call(name("torch.jit._serialization", "load"), text(str(marker))),
        "torch.hub": call(name("torch.hub", "load"), text("a/b"), text("c")),
        "numpy.load": call(name("numpy", "load"), text(str(marker)), b"N\x88"),
        "pip": call(name("pip", "main"), b"(" + text("install") + text("nothing") + b"l"),
        "ctypes": call(name("ctypes", "CDLL"), text("libc.so.6")),
        "multiprocessing": call(name("multiprocessing.util", "spawnv_passfds"), text("/bin/true"), b"]]"),
        "call of a Dictionary": call(dictionary, touch),
        "call of an array's type": call(name("numpy", "ndarray"), b"(K\x01t"),
        "another codec": call(encode, text("a"), text("rot13")),
        "state of a name": dictionary + b"}" + text("__setstate__") + name("os", "system") + b"sb",
        "state with slots": dictionary + b")\x81N}" + text("__class__") + name("os", "system") + b"s\x86b",
        "name with a control sequence": name("\x1b[31mos", "system"),
        "name with a blank": name("numpy dtype", "x"),
        "name with a newline's end": name("numpy", "dtype.type"),
        "type of objects": call(name("numpy", "dtype"), text("O"), b"\x89", b"\x88"),
        "array that was never filled": b"}" + text("sentences") + ARRAY + b"s",
        "array with a state that is none": b"}" + text("sentences") + ARRAY + b"Nbs",
    }
    return {key: program(body) for key, body in bodies.items()} | {
        "STACK_GLOBAL of numbers": program(b"K\x01K\x02\x93", 4),
        "STACK_GLOBAL of nothing": program(b"\x93", 4),
        "protocol 5's buffers": program(b"\x97", 5),
    }


DAMAGED = {
    "nothing but an end": b"\x80\x02.",
    "no end": b"\x80\x02}",
    "an unknown operation": program(b"\xff"),
    "an unknown memo": program(b"h\x07"),
    "a mark that is not there": program(b"u"),
    "two values": program(b"NN"),
    "a mark left": program(b"(N"),
    "an item from below the mark": program(b"}K\x01(Nsu"),
    "an item without a value": program(b"}(Nu"),
    "an item of a number": program(b"K\x01K\x02K\x03s"),
    "a key that is a dict": program(b"}}Ns"),
    "text of 4 GiB": program(b"X\xff\xff\xff\xffa"),
    "text of 2**60 bytes": program(b"\x8d" + struct.pack("<Q", 1 << 60) + b"a", 4),
    "bytes of 2**60": program(b"\x8e" + struct.pack("<Q", 1 << 60) + b"a", 4),
    "bytes of 2**64 - 1": program(b"\x8e" + b"\xff" * 8 + b"a", 4),
    "a frame of 2**64 - 1": program(b"\x95" + b"\xff" * 8, 4),
    "a negative length": program(b"\x8b\xff\xff\xff\xff"),
    "a long line": program(b"c" + b"a" * 100_000 + b"\nb\n"),
    "a number of many digits": program(b"L" + b"9" * 100_000 + b"L\n"),
    "text that is not UTF-8": program(b"X\x02\x00\x00\x00\xff\xff"),
    "deep tuples": program(b")" + b"\x85" * 100_000),
    "doubled tuples": program(b")" + b"q\x00h\x00\x86" * 100),
    "doubled tuples as a key": program(b"})" + b"q\x00h\x00\x86" * 100 + b"Ns"),
    "deep tuples as a key": program(b"})" + b"\x85" * 100_000 + b"Ns"),
    "a list": program(b"]"),
}
"""Pickles that are no programs, or that ask for more than any machine has."""


def bare(content: bytes) -> bytes:
    return content


def legacy(content: bytes) -> bytes:
    """As torch wrote files before 1.6."""
    return b"".join([*(pickle.dumps(part, 2) for part in LEGACY_START), content, pickle.dumps([], 2)])


def archive(content: bytes, **more: bytes) -> bytes:
    """As torch writes files now; ``more``: further members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for member, data in {"x/data.pkl": content, "x/byteorder": b"little", "x/version": b"3\n", **more}.items():
            members.writestr(member, data)
    return file.getvalue()


CONTAINERS = {"bare": bare, "legacy": legacy, "archive": archive}
