"""No archive runs forever, fills memory, or writes anything but records."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store.archive import pack_records, read_records, unpack_records
from harness.store.record_files import save_record
from harness.store.tar_stream import MAX_NAME_CHARS, TarStream
from tests.make_archives import ATTACKS, NAME, mutations, pax, real_record, tar_gz, ustar
from tests.make_records import make_record

# What the archives that are not worth a child of their own become: the words of the refusal, of all or of the member.
OUTCOMES = {
    "negative size": "a size that is not a number",
    "size of 2**90": "a size that is not a number",
    "pax header of 200 KiB": "a header of 204,800 bytes",
    "pax header of many keys": "not a readable record",
    "pax size": "a pax header with a size",
    "pax header damaged": "a pax header is damaged",
    "long name of 1 MiB": "a header of 1,048,576 bytes",
    "old sparse": "a sparse file is in it",
    "pax sparse": "not a plain file",
    "symbolic link": "not a plain file",
    "hard link": "not a plain file",
    "device": "not a plain file",
    "pipe": "not a plain file",
    "30,000 gzip streams": "something other than an archive follows",
    "one key of 30 MB": "not a record: kkkk",
}
BIG = ["record of empty objects", "record of wrong numbers"]  # the bench has all
READ = """
import sys
from pathlib import Path
from harness.store.archive import read_records
loaded = read_records([Path(sys.argv[1])])
peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(len(loaded.records), len(loaded.unreadable), peak_kib)
"""


@pytest.mark.parametrize("kind", OUTCOMES)
def test_every_kind_of_hostile_archive_is_refused_in_words(kind, tmp_path):
    """Before, the first never ended, the third took 43 s (and four times as long at twice the length), sparse ones 22 s."""
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(ATTACKS[kind]())
    try:
        problems = read_records([archive]).unreadable
    except UserError as error:
        problems = (str(error),)
    assert OUTCOMES[kind] in " ".join(problems)
    assert all(len(problem) < 600 for problem in problems)


@pytest.mark.parametrize("kind", BIG)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_no_archive_takes_more_than_1_gib(kind, tmp_path):
    """1 MB of such records took 6.7 GiB."""
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(ATTACKS[kind]())
    child = subprocess.run([sys.executable, "-c", READ, archive], capture_output=True, text=True, check=True)
    num_read, num_refused, peak_kib = map(int, child.stdout.split())
    assert num_refused == 1 and num_read <= 1
    assert peak_kib < 2**20


def test_thirty_mutations_of_a_real_archive_end_refused_or_read(tmp_path):
    """A tenth of those of bench/bench_archives.py."""
    archive, results = tmp_path / "a.tar.gz", tmp_path / "results"
    for content in mutations(seed=1, count=30):
        archive.write_bytes(content)
        try:
            unpacked = unpack_records(archive, results)
        except UserError as error:
            assert "not a readable .tar.gz archive" in str(error)
        else:
            assert all(path.is_relative_to(results) for path in unpacked.new)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tar.gz", "results"}


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["short", "x" * 60 + "/" + "y" * 60, "é" * 70, "z" * 150])
def test_what_tarfile_writes_is_read(format_, folder, tmp_path):
    name = f"{folder}/{NAME}"
    if format_ == tarfile.USTAR_FORMAT and len(folder) > 100:
        folder = f"{folder[:90]}/{folder[90:]}"
        name = f"{folder}/{NAME}"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=format_) as tar:
        for kind, content in (("5", b""), ("0", real_record())):
            info = tarfile.TarInfo(folder if kind == "5" else name)
            info.type, info.size, info.mtime = kind.encode(), len(content), 1.5
            tar.addfile(info, io.BytesIO(content))
    tar = TarStream(tmp_path / "a.tar.gz", 2**30)
    assert [(member.name, tar.read(member)) for member in tar] == [(name, real_record())]


def test_a_name_of_any_length_is_no_way_to_fill_the_screen(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_gz(pax("path", "n" * (MAX_NAME_CHARS + 1)), ustar(NAME, 0)))
    with pytest.raises(UserError, match="a name of 1,025 characters"):
        read_records([path])


def test_packing_does_not_follow_a_link_in_the_place_of_its_partial_file(tmp_path):
    """The file that the link named was overwritten."""
    file = save_record(make_record(), tmp_path / "there")
    (tmp_path / "diary").write_text("mine")
    Path(tmp_path / "a.tar.gz.partial").symlink_to(tmp_path / "diary")
    pack_records([file], tmp_path / "there", tmp_path / "a.tar.gz")
    assert (tmp_path / "diary").read_text() == "mine"
    assert len(read_records([tmp_path / "a.tar.gz"]).records) == 1


def test_more_records_than_memory_allows_are_left_aside_by_name(tmp_path, monkeypatch):
    file = save_record(make_record(), tmp_path / "there")
    pack_records([file], tmp_path / "there", tmp_path / "a.tar.gz")
    monkeypatch.setattr("harness.store.archive.MAX_HELD_BYTES", 100)
    (problem,) = read_records([tmp_path / "a.tar.gz"]).unreadable
    assert file.name in problem and "harness import" in problem
