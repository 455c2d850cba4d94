"""The code that is sent to nodes is the same, byte for byte, wherever it lies."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

from harness.cluster.code_package import code_sha256, pack_code, unpack_code


def test_the_unpacked_code_has_the_same_hash_and_reads_its_own_tables(tmp_path):
    package = unpack_code(pack_code(), tmp_path)
    code = (
        "from harness.cluster.code_package import code_sha256; from harness.shipped import tables_folder; "
        "from harness.files import PACKAGE_FOLDER; print(code_sha256(), PACKAGE_FOLDER, tables_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(package.parent)}, cwd="/", capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.split() == [code_sha256(), str(package), str(package / "tables")]


def test_no_compiled_file_and_all_assets_are_packed():
    names = zipfile.ZipFile(io.BytesIO(pack_code())).namelist()
    assert not [name for name in names if name.endswith(".pyc")]
    assert {"harness/py.typed", "harness/report/assets/page.css", "harness/tables/prices.csv"} <= set(names)
    assert names == sorted(names)
