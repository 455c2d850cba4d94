"""Complete the columns that a user named with guesses from a dataset's first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from harness.dataset.column_guess import ColumnGuess, Role, explain_missing_label, explain_missing_text, guess_columns
from harness.dataset.file_formats import SourceFile, find_files
from harness.dataset.file_readers import check_columns, is_utf8, read_column_names, read_parts, suspect_columns
from harness.dataset.row_checks import RejectedRows
from harness.errors import UserError
from harness.schema.settings import PACKAGED_DATA, DataSettings

# Enough parts that files whose rows are sorted by label show more than one label.
_MAX_PARTS = 20
_SAMPLE_ROWS = 5_000
_MAX_SHOWN_COLUMNS = 20
_KEYS: dict[Role, str] = {"text": "text", "label": "label", "group": "group_by"}


def resolve_columns(
    source: str, given: Mapping[str, object]
) -> tuple[DataSettings, dict[Role, ColumnGuess], tuple[str, ...]]:
    """Complete the given columns with guesses from the first rows.

    Args:
        source: A file, glob, folder or the packaged dataset.
        given: `[data]` keys that the user gave.

    Returns:
        Settings that read the source, guesses to show, and the names of all columns.

    Raises:
        UserError: If the source can't be read, or no column looks like text or label.
    """
    if source == PACKAGED_DATA:
        return DataSettings.model_validate({**given, "source": source, "on_bad_row": "skip"}), {}, ()
    where = f"data {source!r}"
    files = find_files(source, where)
    if files is None:
        raise UserError(f"{where}: no such file; columns of hub datasets can't be guessed: give a local copy")
    names = tuple(read_column_names(files[0], where))
    check_columns(files[0], names, sorted(_given_columns(given)), where)
    sample = _sample_columns(files[0], names, where)
    guesses = guess_columns({name: values for name, values in sample.items() if name not in _given_columns(given)})
    guessed = {role: guess for role, guess in guesses.items() if role in _KEYS and _KEYS[role] not in given}
    needed: tuple[Role, ...] = ("text", "label")
    missing = [role for role in needed if role not in given and role not in guessed]
    if missing:
        raise _missing_error(files[0], where, missing, sample, names)
    _check_header(where, guessed, sample)
    columns = {_KEYS[role]: guess.column for role, guess in guessed.items()}
    if {"time_by", "stratify"} & given.keys():
        columns.pop("group_by", None)
    shown = {role: guess for role, guess in guesses.items() if role in guessed or role == "time"}
    return DataSettings.model_validate({**columns, **given, "source": source, "on_bad_row": "skip"}), shown, names


def _sample_columns(file: SourceFile, names: Sequence[str], where: str) -> dict[str, list[object]]:
    """Return values of the columns that a study could name, in at most `_SAMPLE_ROWS` rows, evenly spaced.

    Raises:
        UserError: If none of the first rows can be split into columns.
    """
    counts = Counter(names)
    usable = [name for name in names if name and counts[name] == 1 and is_utf8(name)]
    sample: dict[str, list[object]] = {name: [] for name in usable}
    rejected, num_rows = RejectedRows(), 0
    for part in islice(read_parts(file, usable, where), _MAX_PARTS):
        rejected.add(part.rejected, "line")
        num_rows += len(part.row_numbers)
        for name, values in sample.items():
            values += part.columns[name]
    if not num_rows and not all(map(is_utf8, names)):
        raise UserError(f"{where}: its first line is not UTF-8: save it as UTF-8")
    if not num_rows and rejected.counts:
        fix = "fix them; the first line must name the columns"
        raise UserError("\n  ".join([f"{where}: no row can be read", *rejected.lines(), fix]))
    if not num_rows:
        raise UserError(f"{where}: the file has no rows; export it again")
    stride = -(-num_rows // _SAMPLE_ROWS)
    return {name: values[::stride] for name, values in sample.items()}


def _given_columns(given: Mapping[str, object]) -> set[str]:
    columns: set[str] = set()
    for key in ("text", "pair", "label", "group_by", "time_by"):
        value = given.get(key, ())
        columns |= {value} if isinstance(value, str) else set(value) if isinstance(value, list | tuple) else set()
    return columns


def _missing_error(
    file: SourceFile, where: str, missing: Sequence[Role], sample: Mapping[str, Sequence[object]], names: Sequence[str]
) -> UserError:
    """Return the error that no column looks like text or label, with the reason if a column's name does.

    Args:
        file: The first file.
        where: Prefix of the message.
        missing: `text`, `label` or both.
        sample: Values of the columns.
        names: Names of all columns.
    """
    shown = ", ".join(map(repr, names[:_MAX_SHOWN_COLUMNS]))
    shown += f" and {len(names) - _MAX_SHOWN_COLUMNS:,} more" if len(names) > _MAX_SHOWN_COLUMNS else ""
    fix = suspect_columns(file, names) or f"name it with {' and '.join(f'--{role} COLUMN' for role in missing)}"
    reason = explain_missing_text(sample) if "text" in missing else None
    if "label" in missing and reason is None and len(names) > 1:
        reason = explain_missing_label(sample)
    return UserError(
        f"{where}: no column looks like the {' or the '.join(missing)}{f' ({reason})' if reason else ''}; its columns: {shown}; "
        f"{fix}"
    )


def _check_header(where: str, guessed: Mapping[Role, ColumnGuess], sample: Mapping[str, Sequence[object]]) -> None:
    """Raise UserError if the label column's name is one of its labels, as in a file without a header."""
    label = guessed.get("label")
    if label is not None and label.column in sample[label.column]:
        raise UserError(
            f"{where}: the first line must name the columns: {label.column!r} is the name of a column and one of its values; "
            "add a first line such as text,label"
        )
