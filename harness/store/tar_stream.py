"""Read .tar.gz files from strangers: plain files only, as a stream, within bounds on sizes, names and headers.

`tarfile` is for archives that one trusts: a negative size makes it read the same member forever, pax headers take it
time quadratic in their length, and sparse members expand without limit. This reader knows the little that archives of
records need (POSIX.1-1988 ustar headers; `path` of pax headers, POSIX.1-2001; GNU long names), and refuses the rest.
Its time is linear in the expanded size, and it holds one member at a time.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 512
MAX_MEMBERS = 50_000
MAX_HEADER_BYTES = 8 * 2**10  # of a pax header or a long name
MAX_NAME_CHARS = 1024
_MAX_STREAMS = 20_000  # gzip streams in one file; each costs a copy of the input that is left
_READ_BYTES, _EXPAND_BYTES = 2**16, 2**20
_GZIP = 31  # zlib's code for a gzip header and checksum
_GZIP_MAGIC = b"\x1f\x8b"
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_PLAIN, _FOLDER, _WITHOUT_DATA = b"0\x007", b"5", b"12346"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"


class ArchiveError(ValueError):
    """The file is not an archive, is damaged, or has what no archive of records needs."""


@dataclass(frozen=True)
class TarMember:
    """A member's header.

    Attributes:
        num_bytes: Size of the content that follows the header.
        is_plain: Whether it is a regular file, not a link, device or sparse file.
    """

    name: str
    num_bytes: int
    is_plain: bool


class TarStream:
    """A forward-only reader of one archive; read or leave each member's content before the next header.

    Args:
        path: The .tar.gz file.
        max_bytes: Most bytes to expand.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._chunks = expand_gzip(path, max_bytes)
        self._buffer = bytearray()
        self._num_left = 0  # bytes of the current member, padding included, that were not read

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the header of each member but folders.

        Raises:
            ArchiveError: The archive can't be read.
            OSError: The file can't be read.
        """
        long_name: str | None = None
        is_sparse = False
        for index in range(MAX_MEMBERS + 1):
            self._skip(self._num_left)
            header = self._read(BLOCK_BYTES, can_end=index > 0)
            if not header.strip(b"\0"):
                return
            kind, size = _check_header(header)
            if kind in (_PAX, _GNU_NAME, _PAX_GLOBAL, _GNU_LINK):
                content = self._read_extension(size)
                if kind == _PAX:
                    pax_name, is_sparse = _parse_pax(content)
                    long_name = pax_name or long_name
                elif kind == _GNU_NAME:
                    long_name = _text(content.partition(b"\0")[0])
                continue
            self._num_left = 0 if kind in _WITHOUT_DATA else _padded(size)
            if kind != _FOLDER:
                name = long_name or _ustar_name(header)
                if len(name) > MAX_NAME_CHARS:
                    raise ArchiveError(f"a name of {len(name):,} characters")
                yield TarMember(name, size, kind in _PLAIN and not is_sparse)
            long_name, is_sparse = None, False
        raise ArchiveError(f"more than {MAX_MEMBERS:,} members")

    def read(self, member: TarMember) -> bytes:
        """Return the content of the member that was yielded last."""
        content = self._read(member.num_bytes)
        self._num_left -= member.num_bytes
        return content

    def _read_extension(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise ArchiveError(f"a header of {size:,} bytes")
        self._num_left = _padded(size) - size
        return self._read(size)

    def _read(self, num_bytes: int, *, can_end: bool = False) -> bytes:
        while len(self._buffer) < num_bytes:
            chunk = next(self._chunks, None)
            if chunk is None:
                if can_end and not self._buffer:
                    return b""
                raise ArchiveError("it ends too early")
            self._buffer += chunk
        content = bytes(self._buffer[:num_bytes])
        del self._buffer[:num_bytes]
        return content

    def _skip(self, num_bytes: int) -> None:
        while num_bytes:
            num_bytes -= len(self._read(min(num_bytes, _EXPAND_BYTES)))
        self._num_left = 0


def expand_gzip(path: Path, max_bytes: int) -> Iterator[bytes]:
    """Yield the expanded content of a gzip file in chunks of at most 1 MiB, and verify its checksums.

    Raises:
        ArchiveError: It is damaged, or expands to more than `max_bytes`.
        OSError: The file can't be read.
    """
    num_bytes, num_streams = 0, 1
    stream = zlib.decompressobj(_GZIP)
    pending = b""
    with path.open("rb") as file:
        while True:
            pending = pending or file.read(_READ_BYTES)
            try:
                chunk = stream.decompress(pending, _EXPAND_BYTES)
            except zlib.error as error:
                raise ArchiveError(str(error)) from None
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise ArchiveError(f"more than {max_bytes:,} bytes, too large for records")
            if chunk:
                yield chunk
            elif not pending and not stream.eof:
                raise ArchiveError("it ends too early")
            pending = stream.unconsumed_tail
            if stream.eof:
                pending = stream.unused_data or file.read(_READ_BYTES)
                if not pending.strip(b"\0"):
                    return
                num_streams += 1
                if num_streams > _MAX_STREAMS or not pending.startswith(_GZIP_MAGIC[: len(pending)]):
                    raise ArchiveError("something other than an archive follows")
                stream = zlib.decompressobj(_GZIP)


def _check_header(header: bytes) -> tuple[bytes, int]:
    """Return a header's type and the size of its content, if its checksum and its size are good."""
    checksum, size = _OCTAL.fullmatch(header[148:156]), _OCTAL.fullmatch(header[124:136])
    if checksum is None or int(checksum[1] or b"0", 8) != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise ArchiveError("a header's checksum is wrong")
    if size is None:
        raise ArchiveError("a size that is not a number of up to 11 octal digits")
    kind = header[156:157]
    if kind == _GNU_SPARSE:
        raise ArchiveError("a sparse file is in it; pack records without -S")
    return kind, int(size[1] or b"0", 8)


def _ustar_name(header: bytes) -> str:
    name, prefix = (_text(header[start:end].partition(b"\0")[0]) for start, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _parse_pax(content: bytes) -> tuple[str | None, bool]:
    """Return the `path` of a pax header, None without one, and whether it describes a sparse file."""
    name, is_sparse = None, False
    while content.strip(b"\0"):
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < len(str(MAX_HEADER_BYTES)) + 1 else 0
        key, equals, value = content[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n") or length > len(content):
            raise ArchiveError("a pax header is damaged")
        if key == b"size":
            raise ArchiveError("a pax header with a size; no record is so large")
        if key == b"path":
            name = _text(value[:-1])
        is_sparse = is_sparse or key.startswith(b"GNU.sparse.")
        content = content[length:]
    return name, is_sparse


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
