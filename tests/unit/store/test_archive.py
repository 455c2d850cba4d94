"""Archives carry records, and nothing else can be unpacked from one."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from harness.errors import UserError
from harness.schema.record import to_json, upgrade_record
from harness.store.archive import iter_members, pack_records, packable_files, read_records, unpack_records
from harness.store.record_files import load_records, save_record
from tests.make_records import make_machine, make_record

NAME = "20261001T080000Z-0a1b.json"


def archive_of(path, *members):
    """Members are (name, content) or whole TarInfos."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def content_of(record):
    return to_json(record).encode()


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_records_are_unpacked_unchanged_and_only_once(tmp_path):
    records = [make_record(), make_record(seed=1, minutes=5), make_record(outcome="oom", reason="too big", minutes=9)]
    files = [save_record(record, tmp_path / "there") for record in records]
    pack_records(files, tmp_path / "there", tmp_path / "check.tar.gz")
    unpacked = unpack_records(tmp_path / "check.tar.gz", tmp_path / "here")
    assert (len(unpacked.new), unpacked.num_known, unpacked.refused) == (3, 0, ())
    assert files_under(tmp_path / "here") == files_under(tmp_path / "there")
    assert load_records([tmp_path / "here"]).records == load_records([tmp_path / "there"]).records
    again = unpack_records(tmp_path / "check.tar.gz", tmp_path / "here")
    assert (again.new, again.num_known, again.refused) == ((), 3, ())


def test_an_archive_names_no_user_time_or_folder(tmp_path):
    file = save_record(make_record(), tmp_path / "there")
    pack_records([file], tmp_path / "there", tmp_path / "check.tar.gz")
    with tarfile.open(tmp_path / "check.tar.gz") as tar:
        (member,) = tar.getmembers()
    assert (member.uid, member.uname, member.mtime) == (0, "", 0)
    assert str(tmp_path) not in member.name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"../../{NAME}", "not a plain file within the archive"),
        (f"/etc/{NAME}", None),  # tarfile strips the leading slash; the record's own fields decide anyway
        ("study/run.sh", "not a record's file"),
        ("study/cell/.json", "not a record's file"),
        (f"study/{NAME}.partial", "not a record's file"),
    ],
)
def test_the_path_of_a_member_is_ignored(name, reason, tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", (name, content_of(make_record())))
    unpacked = unpack_records(archive, tmp_path / "here" / "results")
    assert [reason in message for message in unpacked.refused] == ([True] if reason else [])
    assert all(path.is_relative_to(tmp_path / "here" / "results") for path in unpacked.new)
    assert files_under(tmp_path) == ["a.tar.gz", *(path.relative_to(tmp_path).as_posix() for path in unpacked.new)]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind, tmp_path):
    info = tarfile.TarInfo(NAME)
    info.type, info.linkname = kind, "/etc/passwd"
    unpacked = unpack_records(archive_of(tmp_path / "a.tar.gz", info), tmp_path / "here")
    assert unpacked.new == () and len(unpacked.refused) == 1
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("field", ["machine", "study", "cell"])
@pytest.mark.parametrize("hostile", ["..", "../../..", "/etc", "a/../../b", "."])
def test_no_field_of_a_record_leads_outside_the_results(field, hostile, tmp_path):
    record = (
        make_record(machine=make_machine(machine_id=hostile)) if field == "machine" else make_record(**{field: hostile})
    )
    unpacked = unpack_records(archive_of(tmp_path / "a.tar.gz", (NAME, content_of(record))), tmp_path / "x" / "results")
    (path,) = unpacked.new
    assert path.parent.parent.parent.parent == tmp_path / "x" / "results"
    assert files_under(tmp_path) == ["a.tar.gz", path.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not a readable record"),
        (b"[]", "not a record: schema_version is missing"),
        (b"[" * 100_000, "not a readable record"),
        (b"\xff\xfe", "not a readable record"),
        (json.dumps({"schema_version": 99}).encode(), "schema_version 99, this harness reads up to"),
        (json.dumps({"schema_version": 1, "cell": "x"}).encode(), "not a record: "),
    ],
)
def test_a_file_that_is_not_a_record_is_refused_and_others_are_unpacked(content, reason, tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", (NAME, content), (f"b/{NAME}", content_of(make_record())))
    unpacked = unpack_records(archive, tmp_path / "here")
    assert len(unpacked.new) == 1
    assert reason in unpacked.refused[0]


def test_what_a_killed_import_left_is_removed_by_the_next(tmp_path):
    partial = tmp_path / "results" / "m" / "s" / "c" / ".writing-x7d0q1kf.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"{")
    archive = archive_of(tmp_path / "a.tar.gz", (NAME, content_of(make_record())))
    assert len(unpack_records(archive, tmp_path / "results").new) == 1
    assert not partial.exists()  # stayed until the next run


def test_an_existing_record_is_never_overwritten(tmp_path):
    mine = make_record()
    archive = archive_of(tmp_path / "a.tar.gz", (NAME, content_of(mine)))
    (path,) = unpack_records(archive, tmp_path / "here").new
    theirs = upgrade_record(json.loads(content_of(mine)) | {"reason": "another"})
    unpacked = unpack_records(archive_of(tmp_path / "b.tar.gz", (NAME, content_of(theirs))), tmp_path / "here")
    assert unpacked.new == () and "another record of this name is there already" in unpacked.refused[0]
    assert path.read_bytes() == content_of(mine)


def test_a_member_too_large_for_a_record_is_not_read(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", (NAME, content_of(make_record())))
    ((name, member),) = iter_members(archive, max_member_bytes=100)
    assert name == NAME and "too large for a record" in member.reason
    with pytest.raises(UserError, match="too large for records"):
        list(iter_members(archive, max_total_bytes=100))


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_file_that_is_not_an_archive_is_a_user_error(content, tmp_path):
    path = tmp_path / "a.tar.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable"):
        unpack_records(path, tmp_path / "here")


def test_a_truncated_archive_is_a_user_error(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", *((f"{i}/{NAME}", content_of(make_record(seed=i))) for i in range(9)))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(UserError, match="not a readable"):
        unpack_records(archive, tmp_path / "here")


def packed(tmp_path, name, *records):
    folder = tmp_path / f"{name}-results"
    files = [save_record(record, folder) for record in records]
    pack_records(files, folder, tmp_path / name)
    return tmp_path / name, folder


def test_archives_and_folders_give_the_same_records_and_nothing_is_written(tmp_path):
    there = make_machine(machine_id="xeon-2c-8g-000002", host="host-b")
    one, folder = packed(tmp_path, "one.tar.gz", make_record(), make_record(seed=1, minutes=9))
    two, other = packed(tmp_path, "two.tgz", make_record(machine=there, minutes=5))
    before = files_under(tmp_path)
    assert read_records([one, two]) == read_records([folder, other]) == read_records([one, other])
    assert [record.machine.id for record in read_records([two, one]).records] == [
        make_machine().id, there.id, make_machine().id,
    ]  # fmt: skip
    assert files_under(tmp_path) == before


def test_copies_of_a_run_count_once(tmp_path):
    records = [make_record(), make_record(repeat=1), make_record(seed=1), make_record(machine=make_machine(host="b"))]
    archive, folder = packed(tmp_path, "one.tar.gz", *records)
    again, _ = packed(tmp_path, "again.tar.gz", *records)
    assert len(read_records([archive, folder, again]).records) == 4


def test_a_bad_member_is_reported_and_the_others_are_read(tmp_path):
    archive = archive_of(
        tmp_path / "a.tar.gz", (NAME, b"{"), ("../x.json", b"{}"), (f"b/{NAME}", content_of(make_record()))
    )
    loaded = read_records([archive])
    assert len(loaded.records) == 1
    assert [
        f"{archive}: {NAME!r}: not a readable record" in loaded.unreadable[0],
        "not a plain file" in loaded.unreadable[1],
    ] == [
        True,
        True,
    ]
    assert files_under(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_bad_archive_is_a_user_error_on_reading_too(content, tmp_path):
    if content is not None:
        (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tar\.gz: not a readable"):
        read_records([tmp_path / "a.tar.gz"])


def test_an_archive_with_a_changed_byte_is_a_user_error(tmp_path):
    archive, _ = packed(tmp_path, "one.tar.gz", *(make_record(seed=seed) for seed in range(5)))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(bytes(content))
    with pytest.raises(UserError, match="not a readable"):
        read_records([archive])


def test_records_of_this_machine_or_of_all_are_packed(tmp_path):
    there = make_machine(machine_id="xeon-2c-8g-000002")
    mine, theirs = save_record(make_record(), tmp_path), save_record(make_record(machine=there), tmp_path)
    (tmp_path / "notes.json").write_text("{")
    assert packable_files(tmp_path, make_machine().id)[0] == [mine]
    files, problems = packable_files(tmp_path, None)
    assert sorted(files) == sorted([mine, theirs])
    assert len(problems) == 1 and "notes.json" in problems[0]
    with pytest.raises(UserError, match="no records of this machine, arm-1c; --all packs"):
        packable_files(tmp_path, "arm-1c")


def test_a_failed_packing_leaves_no_archive(tmp_path):
    file = save_record(make_record(), tmp_path / "there")
    with pytest.raises(OSError, match="gone"):
        pack_records([file, tmp_path / "there" / "gone.json"], tmp_path / "there", tmp_path / "a.tar.gz")
    assert files_under(tmp_path) == [file.relative_to(tmp_path).as_posix()]
