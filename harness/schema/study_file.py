"""Read a study file (TOML) into frozen settings and report every mistake in it at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, invalid_file, shorten
from harness.schema.settings import MAX_NAME_BYTES, SECTIONS, TABLES, MatrixSettings, Study
from harness.schema.toml_files import parse_toml, read_toml
from harness.shipped import nearest_study

_MAX_SHOWN_CHARS = 60  # limits a wrong value in an error message


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: A TOML file; the study is named after it unless it has a `name`.
        overrides: `KEY=VALUE` settings that replace those of the file; each value is TOML, e.g. `matrix.seq_len=[512]`.

    Raises:
        UserError: When the file can't be read or has mistakes; the message has one line for each mistake.
    """
    try:
        raw = read_toml(path)
    except FileNotFoundError:
        near = nearest_study(path)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(
            f"{path}: no such study file{hint} (`harness studies` lists those that come with the harness)"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; expected a study file (.toml)") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    raw.setdefault(
        "name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-")[:MAX_NAME_BYTES].rstrip(".") or "study"
    )
    for override in overrides:
        _override(raw, override)
    return parse_study(raw, where=str(path))


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    table, _, name = key.strip().partition(".")
    try:
        parsed = parse_toml(f"value = {value}")["value"] if equals else None
    except ValueError:
        parsed = value.strip()  # allows strings without quotes
    if not equals or not table:
        raise UserError(f"--set {override}: expected KEY=VALUE, e.g. matrix.seq_len=[128]")
    if name and not isinstance(raw.setdefault(table, {}), dict):
        raise UserError(f"--set {override}: {table} is not a table but {_shown(raw[table])}")
    if name:
        raw[table][name] = parsed
    else:
        raw[table] = parsed


def parse_study(raw: Mapping[str, Any], where: str) -> Study:
    """Check the content of a study file.

    Args:
        raw: The parsed TOML.
        where: Start of the error message, e.g. the file's path.

    Raises:
        UserError: When there are mistakes; the message has one line for each.
    """
    problems: list[str] = []
    top = dict(raw)
    if top.pop("sweeps", None) is not None:
        problems.append('sweeps: unknown key; sweep a key as matrix."section.key" = [...]')
    top["matrix"], top["sweeps"] = _split_matrix(top.get("matrix", {}), problems)
    top["exclude"] = tuple(
        _check_rule(rule, f"exclude[{i}]", problems, single=False)
        for i, rule in enumerate(_tables(top.get("exclude", []), "exclude", problems))
    )
    top["include"] = tuple(
        _check_rule(rule, f"include[{i}]", problems, single=True)
        for i, rule in enumerate(_tables(top.get("include", []), "include", problems))
    )
    try:
        study = Study.model_validate(top)
    except ValidationError as error:
        problems = format_validation_error(error, Study) + problems
    if problems:
        raise invalid_file(where, problems)
    return study


def format_validation_error(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Format pydantic's errors as one line per key: its path, the value found and what is allowed.

    Args:
        error: The validation error.
        model: The model that was validated; its field names serve as suggestions for unknown keys.
        prefix: Start of every line.
    """
    heads_and_messages: dict[str, tuple[str, list[str]]] = {}
    for item in error.errors():
        if item["type"] == "too_short" and item["input"]:
            continue  # caused by wrong members, which have lines of their own
        loc = [part for part in item["loc"] if not _is_union_tag(part)]
        message = re.sub(r"^(Value error, )?(Input should be )?(allowed: )?", "", item["msg"])
        if item["type"] == "extra_forbidden":
            head, message = "unknown key", _nearest(str(loc[-1]), _names_at(model, loc[:-1]))
        else:
            head = f"found {_shown(item['input'])}; allowed: "
            if item["type"] == "literal_error":
                message += _nearest(str(item["input"]), re.findall(r"'([^']+)'", message), list_all=False)
        # A value that fits no member of a union has one error per member: join these errors in one line.
        heads_and_messages.setdefault(prefix + _dotted(loc), (head, []))[1].append(message)
    return [
        f"{path}: {head}{' or '.join(dict.fromkeys(messages))}" for path, (head, messages) in heads_and_messages.items()
    ]


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"int", "function-before[check_number(), int]"})


def _dotted(loc: Sequence[str | int]) -> str:
    path = ""
    for part in loc:
        part = shorten(part, _MAX_SHOWN_CHARS) if isinstance(part, str) else part
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _names_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _nearest(name: str, allowed: Sequence[str], *, list_all: bool = True) -> str:
    """Suggest the most similar allowed name, or else list all allowed names."""
    close = difflib.get_close_matches(name, allowed, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; allowed: {', '.join(allowed)}" if list_all and allowed else ""


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of a number with thousands of digits, or lists in lists in lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."


def _tables(value: object, key: str, problems: list[str]) -> list[Mapping[str, Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    problems.append(f"{key}: found {_shown(value)}; allowed: tables, written [[{key}]]")
    return []


def _split_matrix(raw: object, problems: list[str]) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Split `[matrix]` into axes and `section.key` sweeps; check the sweeps (MatrixSettings checks the axes later)."""
    if not isinstance(raw, dict):
        problems.append(f"matrix: found {_shown(raw)}; allowed: a table, written [matrix]")
        return {}, {}
    axes: dict[str, Any] = {}
    sweeps: dict[str, tuple[Any, ...]] = {}
    for key, value in flat_items(raw):
        if "." not in key:
            axes[key] = value if isinstance(value, list) else [value]
            continue
        values = value if isinstance(value, list) else [value]
        if not values:
            problems.append(f'matrix."{key}": found []; allowed: at least one value')
        checked = [_check_setting(key, item, f'matrix."{key}"[{i}]', problems) for i, item in enumerate(values)]
        sweeps[key] = tuple(checked)
    return axes, sweeps


def flat_items(raw: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List the values of nested tables, each with its dotted key."""
    pairs: list[tuple[str, Any]] = []
    for key, value in raw.items():
        pairs += flat_items(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


def _check_rule(rule: Mapping[str, Any], where: str, problems: list[str], *, single: bool) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in flat_items(rule):
        path = f"{where}.{key}" if "." not in key else f'{where}."{key}"'
        if single and isinstance(value, list) and key != "training.seeds":
            problems.append(f"{path}: found {_shown(value)}; allowed: one value")
            continue
        values = value if isinstance(value, list) and not single else [value]
        check = _check_setting if "." in key else _check_axis
        members = tuple(check(key, item, path, problems) for item in values)
        checked[key] = members[0] if single else members
    return checked


def _check_axis(key: str, value: object, path: str, problems: list[str]) -> object:
    try:
        checked = MatrixSettings.model_validate({key: [value]})
    except ValidationError as error:
        # Lines begin with the path in MatrixSettings: `key[0]`, or `key` if unknown. Replace it by the rule's path.
        problems += [
            path + line.removeprefix(f"{key}[0]").removeprefix(key)
            for line in format_validation_error(error, MatrixSettings)
        ]
        return value
    return getattr(checked, key)[0]


def _check_setting(key: str, value: object, path: str, problems: list[str]) -> object:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        problems.append(f"{path}: unknown table {section!r}{_nearest(section, list(SECTIONS))}")
        return value
    if key == "training.seeds" and not isinstance(value, list):
        value = [value]
    try:
        checked = SECTIONS[section].model_validate({name: value})
    except ValidationError as error:
        problems += [path + line.removeprefix(name) for line in format_validation_error(error, SECTIONS[section])]
        return value
    return getattr(checked, name)


def key_fields() -> list[dict[str, object]]:
    """Return every key of a study file with its default, which may be None, and its meaning."""
    top = {
        key: field
        for key, field in Study.model_fields.items()
        if key in ("name", "repeats", "max_runs", "baselines", "measure", "ladder")
    }
    return [
        {
            "key": f"{section}{key}",
            "default": field.default,
            "meaning": f"{_choices(field.annotation)}{field.description}",
        }
        for section, fields in [("", top), *((f"{name}.", model.model_fields) for name, model in TABLES.items())]
        for key, field in fields.items()
    ]


def key_rows() -> list[tuple[str, str, str]]:
    """Return every key, its default as JSON (`-` for None), and its meaning."""
    rows = [(str(row["key"]), row["default"], str(row["meaning"])) for row in key_fields()]
    return [(key, "-" if default is None else json.dumps(default), meaning) for key, default, meaning in rows]


def describe_keys() -> str:
    """Render a Markdown table of every key of a study file, its default and its meaning, for bench/README.md."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in key_rows():
        lines.append(f"| `{key}` | {default if default == '-' else f'`{default}`'} | {meaning} |")
    return "\n".join(lines) + "\n"


def _choices(annotation: object) -> str:
    literals = re.findall(r"Literal\[([^\]]+)\]", str(annotation))
    return "; ".join(literal.replace("'", "`") for literal in literals) + ": " if literals else ""
