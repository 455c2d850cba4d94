"""The commands that the documents name: run on shipped records; those that measure are parsed; make's by `make -n`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.lookups import choose_cells, load_cells
from harness.cli.main import app
from harness.machine.describe import describe_machine
from harness.shipped import find_study
from harness.store.archive import pack_records
from harness.store.record_files import iter_record_files, load_records, save_record

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/GUIDE.md", "docs/FAQ.md", "docs/RESULTS.md", "docs/RELEASING.md", "bench/README.md")
# These measure, take long, or ask other computers. They are parsed, and the cells of their study expanded.
MEASURING = {"run", "train", "fit", "profile", "predict", "doctor"}
MEASURING_OPTIONS = {"--probe"}
NETWORK = {("prices", "refresh"), ("machine", "--detect")}
# What stands for a value of the reader's own.
PLACEHOLDERS = {"A": "before", "B": "after", "FILE": "reviews.csv", "STUDY": "default", "NAME": "default"}
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def commands_of(document):
    """Return the command lines of a document, from blocks and from text, that begin with `harness` or `make`."""
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    lines += INLINE.findall(FENCED.sub("", text))
    parts = [part.strip() for line in lines for part in re.split(r"\s#\s|\s&&\s|;\s", line)]
    parts = [part.removeprefix(".venv/bin/") for part in parts]
    return list(dict.fromkeys(part for part in parts if re.match(r"(harness|make) \S", part)))


def documented(program):
    return [
        pytest.param(command, id=f"{document}: {command}")
        for document in DOCUMENTS
        for command in commands_of(document)
        if command.startswith(f"{program} ")
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Lay out a working folder with what the documents' commands name."""
    folder = tmp_path_factory.mktemp("work")
    machine = describe_machine()
    records = load_records([next((ROOT / "results/reference").glob("amd*dbbbf2/default"))]).records
    for name in ("results", "before", "after"):
        for record in records:
            save_record(record.model_copy(update={"machine": machine}), folder / name)
    for name in ("records-here.tar.gz", "gpu-check.tar.gz"):
        pack_records(iter_record_files(folder / "results"), folder / "results", folder / name)
    (folder / "results/reference").symlink_to(ROOT / "results/reference")
    for name in ("prices", "value"):
        shutil.copy(ROOT / f"bench/{name}.example.toml", folder / f"{name}.toml")
    rows = [f'"the {noun} was {word}",{label}' for noun in ("plot", "cast", "end", "film", "score", "pace", "look")
            for label, words in (("good", "fine great moving fresh"), ("bad", "dull poor empty stale"))
            for word in words.split()]  # fmt: skip
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    (folder / "reviews.toml").write_text('[data]\nsource = "reviews.csv"\nnum_train = 30\n', encoding="utf-8")
    return folder


def arguments(command):
    """Split a command into arguments, with placeholders and patterns filled in, and the file of its output, if any."""
    words, _, out = command.partition(" > ")
    found = []
    for word in shlex.split(words)[1:]:
        found += sorted(map(str, Path().glob(word))) if "*" in word else [PLACEHOLDERS.get(word, word)]
    return found, out or None


@pytest.mark.parametrize("command", documented("harness"))
def test_a_command_of_the_documents_works(command, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    words, out = arguments(command)
    if not words[0].startswith("-") and is_mention(words):
        return
    if "--write" in words:
        Path(words[-1]).unlink(missing_ok=True)  # the command overwrites nothing
    if words[0] in MEASURING or MEASURING_OPTIONS & set(words) or tuple(words[:2]) in NETWORK:
        parse(words)
        return
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    if out:
        Path(out).write_text(result.output, encoding="utf-8")


def command_named(name):
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), name)
    assert command is not None, name
    return command


def is_mention(words):
    """Return whether a sentence only names a command, without the arguments that it needs; check its options."""
    params = command_named(words[0]).params
    if not any(each.required for each in params) or any(not word.startswith("-") for word in words[1:]):
        return False
    assert set(words[1:]) <= {option for each in params for option in each.opts}
    return True


def parse(words):
    """Parse a command's options, and expand the cells of its study, if it names one."""
    given = command_named(words[0]).make_context(words[0], list(words[1:])).params
    if "overrides" in given:
        assert choose_cells(load_cells(find_study(given["study"]), given["overrides"]), given.get("only"))


def test_commands_are_found_in_blocks_and_in_text():
    assert "harness run reviews.toml" in commands_of("README.md")
    assert "make gpu-check" in commands_of("README.md")
    assert "harness plan STUDY" in commands_of("bench/README.md")


@pytest.mark.parametrize("command", documented("make"))
def test_a_target_of_the_documents_exists(command):
    done = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
