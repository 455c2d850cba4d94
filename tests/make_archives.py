"""Archives from an enemy: one of each kind that did harm, and random mutations of a real one."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator

from harness.schema.record import to_json
from tests.make_records import make_record

NAME = "20261001T080000Z-0a1b.json"


def ustar(name: str | bytes, size: int | bytes, kind: bytes = b"0", content: bytes = b"") -> bytes:
    """Build one member with a good checksum, whatever its fields say."""
    name = name if isinstance(name, bytes) else name.encode()
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    header = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"0" * 11 + b"\0" + b" " * 8 + kind
    header = header.ljust(257, b"\0") + b"ustar\x0000"
    header = header.ljust(512, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + content + bytes(-len(content) % 512)


def tar_gz(*members: bytes) -> bytes:
    return gzip.compress(b"".join(members) + bytes(1024), 1)


def record_archive(*contents: bytes) -> bytes:
    return tar_gz(*(ustar(f"{i}/{NAME}", len(content), content=content) for i, content in enumerate(contents)))


def pax(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    line = f"{length} {key}={value}\n".encode()
    return ustar("pax", len(line), b"x", line)


def real_record() -> bytes:
    return to_json(make_record()).encode()


def _filled(**fields: object) -> bytes:
    return json.dumps(json.loads(real_record()) | fields).encode()


def zero_stream(num_bytes: int) -> bytes:
    """Return a gzip stream of zeros, made without having them all in memory."""
    stream = zlib.compressobj(9, wbits=31)
    parts = [stream.compress(bytes(2**20)) for _ in range(num_bytes // 2**20)]
    return b"".join([*parts, stream.flush()])


# By what each one is. The comments say what became of it before there were bounds.
ATTACKS: dict[str, Callable[[], bytes]] = {
    # 125 bytes: tarfile read the same member forever
    "negative size": lambda: tar_gz(ustar(NAME, b"\xff" * 11 + b"\x00")),
    "size of 2**90": lambda: tar_gz(ustar(NAME, b"\x80" + b"\xff" * 11)),
    # 333 bytes: 43 s of CPU, four times as long at each doubling
    "pax header of 200 KiB": lambda: tar_gz(ustar("pax", 200 * 2**10, b"x", b"9" * 200 * 2**10)),
    "pax header of many keys": lambda: tar_gz(ustar("p", 7 * 1170, b"x", b"7 a=bc\n" * 1170), ustar(NAME, 0)),
    "pax size": lambda: tar_gz(pax("size", "-512"), ustar(NAME, 0)),
    "pax header damaged": lambda: tar_gz(ustar("pax", 9, b"x", b"-5 path=\n"), ustar(NAME, 0)),
    "long name of 1 MiB": lambda: tar_gz(ustar("././@LongLink", 2**20, b"L", b"a" * 2**20), ustar(NAME, 0)),
    # 22 s
    "old sparse": lambda: tar_gz(ustar(NAME, 512, b"S", bytes(512))),
    "pax sparse": lambda: tar_gz(pax("GNU.sparse.major", "1"), ustar(NAME, 512, content=bytes(512))),
    "symbolic link": lambda: tar_gz(ustar(NAME, 0, b"2")),
    "hard link": lambda: tar_gz(ustar(NAME, 0, b"1")),
    "device": lambda: tar_gz(ustar(NAME, 0, b"3")),
    "pipe": lambda: tar_gz(ustar(NAME, 0, b"6")),
    "60,000 members": lambda: tar_gz(ustar("a.txt", 0) * 60_000),
    "30,000 gzip streams": lambda: gzip.compress(b"") * 30_000,
    # 1 MB that took 6.7 GiB: a mistake for each of its values
    "record of empty objects": lambda: record_archive(_filled(marks=[{}] * 400_000)),
    "record of wrong numbers": lambda: record_archive(_filled(held_bytes=[""] * 3_000_000)),
    "record of empty lists": lambda: record_archive(_filled(stderr_tail=[[]] * 400_000)),
    "record of unknown keys": lambda: record_archive(_filled(**{f"k{i}": 0 for i in range(1_000_000)})),
    "old record of packages": lambda: record_archive(
        _filled(schema_version=1, packages={f"k{i}": "" for i in range(1_500_000)})
    ),
    "one key of 30 MB": lambda: record_archive(_filled(**{"k" * 30_000_000: 0})),
    "10 records of 30 MB": lambda: record_archive(*[_filled(reason="\U0001f600" + "x" * 30_000_000)] * 10),
    "10 good records of 3,000,000 numbers": lambda: record_archive(*[_filled(held_bytes=[123456] * 3_000_000)] * 10),
    "4 GiB of zeros": lambda: gzip.compress(ustar(NAME, 2**32)) + zero_stream(2**32),
}  # fmt: skip


def mutations(seed: int, count: int) -> Iterator[bytes]:  # noqa: C901 - a branch a kind
    """Yield archives that differ from a real one in bytes of its headers, of its content, or of its compression."""
    rng = random.Random(seed)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for index in range(4):
            info = tarfile.TarInfo(f"{'long/' * 30 * (index % 2)}{index}/{NAME}")
            info.size = len(real_record())
            tar.addfile(info, io.BytesIO(real_record()))
    plain = content.getvalue()
    headers = [offset for offset in range(0, len(plain), 512) if plain[offset + 257 : offset + 262] == b"ustar"]
    for _ in range(count):
        kind = rng.choice(["header", "header", "header", "content", "cut", "repeat", "gzip"])
        mutated = bytearray(plain)
        if kind == "header":
            start = rng.choice(headers)
            for _ in range(rng.randint(1, 3)):
                at = start + rng.choice([rng.randrange(100), rng.randrange(124, 136), 156, rng.randrange(512)])
                mutated[at] = rng.choice([0, 0x20, 0x37, 0x80, 0xFF, *b"LKSxg1256", rng.randrange(256)])
            mutated[start + 148 : start + 156] = b" " * 8
            mutated[start + 148 : start + 156] = b"%06o\0 " % sum(mutated[start : start + 512])
        elif kind == "content":
            for _ in range(rng.randint(1, 20)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        elif kind == "cut":
            del mutated[rng.randrange(len(mutated)) :]
        elif kind == "repeat":
            start, end = sorted(rng.sample(range(0, len(mutated), 512), 2))
            mutated[end:end] = mutated[start:end]
        compressed = bytearray(gzip.compress(bytes(mutated), 1))
        if kind == "gzip":
            for _ in range(rng.randint(1, 3)):
                compressed[rng.randrange(len(compressed))] = rng.randrange(256)
        yield bytes(compressed)
