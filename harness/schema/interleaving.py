"""A study's cells under two settings that take turns, A B B A."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from harness.schema.cells import Cell, expand, hash_config
from harness.schema.settings import AXES, SECTIONS
from harness.schema.study_file import load_study

ORDER = "ABBA"
FEWEST_ROUNDS, DEFAULT_ROUNDS = 2, 3  # two runs a side each: a spread between runs needs three
_OPTION = "--interleave"
_SHOWN_SIGNS = 40  # of a setting in a study's name, which is a folder's
# A global batch is shared out among devices: with one of these keys the others' values may follow.
_BATCHES = ("batch_size", "global_batch_size")


@dataclass(frozen=True)
class InterleavedRuns:
    """What is to be run in turns.

    Attributes:
        settings: Of A and of B, as the user wrote them.
        keys: Of a configuration, those in which the sides may differ, as `hash_config` leaves them out.
        pairs: Each cell under both settings, its first run.
        left_out: What has no pair, a sentence each.
    """

    study: str
    settings: tuple[str, str]
    keys: tuple[str, ...]
    pairs: tuple[tuple[Cell, Cell], ...]
    left_out: tuple[str, ...]

    def runs(self, num_rounds: int) -> list[Cell]:
        """All runs, rounds outermost; in each the cells one after the other, each as A B B A."""
        return [
            run
            for first in range(0, 2 * num_rounds, 2)
            for a, b in self.pairs
            for run in (_repeat(a, first), _repeat(b, first), _repeat(b, first + 1), _repeat(a, first + 1))
        ]

    def only(self, kept: Iterable[Cell]) -> InterleavedRuns:
        """Keep the pairs of which both sides are among these cells.

        Raises:
            UserError: When there is none.
        """
        hashes = {cell.config_hash for cell in kept}
        pairs = tuple(pair for pair in self.pairs if all(cell.config_hash in hashes for cell in pair))
        if not pairs:
            raise UserError("--only: no cell is left under both settings; name a key in which A and B are alike")
        return replace(self, pairs=pairs)

    @property
    def hashes(self) -> tuple[frozenset[str], frozenset[str]]:
        """Of the configurations of A and of B."""
        one, other = (frozenset(cell.config_hash for cell in side) for side in zip(*self.pairs, strict=True))
        return one, other


def plan_interleaved(path: Path, overrides: Sequence[str], settings: tuple[str, str]) -> InterleavedRuns:
    """Put each of a study's cells under both settings; baselines and the study's own repeats are left aside.

    The records get a study of their own, named after both settings: runs made at another time are never taken for one
    side's.

    Raises:
        UserError: When the study or a setting can't be read, or the settings make no pair of cells that differ.
    """
    if path.suffix == ".json":
        raise UserError(f"{_OPTION}: {path} is a record; a study file (.toml) is needed")
    keys = _keys(settings)
    sides, name = [], ""
    for setting in settings:
        study = load_study(path, [*overrides, f"matrix.{setting.strip().removeprefix('matrix.')}"])
        study = study.model_copy(update={"repeats": 1, "baselines": False})
        name = f"{study.name}-{_slug(settings[0])}-vs-{_slug(settings[1])}"
        sides.append([cell.model_copy(update={"study": name}) for cell in expand(study)])
    pairs, left_out = _paired(sides[0], sides[1], keys, settings)
    return InterleavedRuns(name, settings, keys, pairs, left_out)


def _keys(settings: tuple[str, str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for setting in settings:
        key, equals, _ = setting.partition("=")
        key = key.strip().removeprefix("matrix.")
        table, _, name = key.partition(".")
        if not equals or (key not in AXES and (table not in SECTIONS or not name)):
            raise UserError(
                f"{_OPTION} {setting}: KEY=VALUE of one cell is needed, e.g. training.compile=true or matrix.batch_size=[8]"
            )
        if key == "training.seeds":
            raise UserError(f"{_OPTION} {setting}: both sides train with the study's seeds")
        found |= dict.fromkeys((*_BATCHES, key) if key in (*_BATCHES, "device") else (key,))
    return tuple(found)


def _paired(
    one: Sequence[Cell], other: Sequence[Cell], keys: tuple[str, ...], settings: tuple[str, str]
) -> tuple[tuple[tuple[Cell, Cell], ...], tuple[str, ...]]:
    sides = [{hash_config(cell.config, ignore=keys): cell for cell in side} for side in (one, other)]
    for cells, setting in zip((one, other), settings, strict=True):
        rests = Counter(hash_config(cell.config, ignore=keys) for cell in cells)
        if any(count > 1 for count in rests.values()):
            raise UserError(f"{_OPTION} {setting}: gives some cells several values; each side has one")
    pairs, left_out = [], []
    for rest in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = sides[0].get(rest), sides[1].get(rest)
        if a is None or b is None:
            alone, which = (b, "A") if a is None else (a, "B")
            left_out.append(f"{alone.label if alone else ''}: the study has no such cell under {which}.")
        elif a.config_hash == b.config_hash:
            left_out.append(f"{a.label}: both settings measure the same.")
        else:
            pairs.append((a, b))
    if not pairs:
        raise UserError(
            "\n".join([f"{_OPTION} {settings[0]} {settings[1]}: no cell differs between the two:", *left_out])
        )
    return tuple(pairs), tuple(left_out)


def _repeat(cell: Cell, repeat: int) -> Cell:
    return cell.model_copy(update={"repeat": repeat})


def _slug(setting: str) -> str:
    key, _, value = setting.strip().removeprefix("matrix.").partition("=")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{key.rpartition('.')[2].strip()}={value}".replace("=", "-"))[
        :_SHOWN_SIGNS
    ].strip("_")
