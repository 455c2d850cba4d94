"""Interleaved A/B runs: a study's cells under two settings, run in the order A B B A."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from harness.schema.cells import Cell, hash_config
from harness.schema.expansion import expand
from harness.schema.settings import AXES, SECTIONS
from harness.schema.study_file import load_study

ORDER = "ABBA"
# A round has two runs of each side. The spread between runs needs at least three runs, hence at least two rounds.
MIN_ROUNDS, DEFAULT_ROUNDS = 2, 3
_OPTION = "--interleave"
_MAX_SETTING_CHARS = 40  # limits a setting in a study's name, because that is also a folder name
# A global batch is split among devices: when one of these keys changes, the other may change too.
_BATCH_AXES = ("batch_size", "global_batch_size")


@dataclass(frozen=True)
class InterleavedRuns:
    """A plan of interleaved runs.

    Attributes:
        settings: The settings A and B, as the user wrote them.
        keys: The configuration keys in which the sides may differ, in the form that `hash_config` takes as `ignore`.
        pairs: The first run of each cell under A and under B.
        left_out: For each cell without a pair, a sentence with the reason.
    """

    study: str
    settings: tuple[str, str]
    keys: tuple[str, ...]
    pairs: tuple[tuple[Cell, Cell], ...]
    left_out: tuple[str, ...]

    def runs(self, num_rounds: int) -> list[Cell]:
        """List all runs: rounds outermost, then cells, each as A B B A."""
        return [
            run
            for first in range(0, 2 * num_rounds, 2)
            for a, b in self.pairs
            for run in (_repeat(a, first), _repeat(b, first), _repeat(b, first + 1), _repeat(a, first + 1))
        ]

    def only(self, chosen: Iterable[Cell]) -> InterleavedRuns:
        """Keep the pairs in which both cells are chosen.

        Raises:
            UserError: When no pair remains.
        """
        hashes = {cell.config_hash for cell in chosen}
        pairs = tuple(pair for pair in self.pairs if all(cell.config_hash in hashes for cell in pair))
        if not pairs:
            raise UserError("--only: no cell is left under both settings; choose by a key that A and B have in common")
        return replace(self, pairs=pairs)

    @property
    def hashes(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the configuration hashes of A and of B."""
        a_hashes, b_hashes = (frozenset(cell.config_hash for cell in side) for side in zip(*self.pairs, strict=True))
        return a_hashes, b_hashes


def plan_interleaved(path: Path, overrides: Sequence[str], settings: tuple[str, str]) -> InterleavedRuns:
    """Pair each of a study's cells under setting A with the same cell under setting B; omit baselines and repeats.

    The cells belong to a study of their own, named after both settings, so that its records are not mixed with those
    of other runs.

    Args:
        path: The study file.
        overrides: `KEY=VALUE` settings for both sides.
        settings: `KEY=VALUE` of A and of B.

    Raises:
        UserError: When the study or a setting is invalid, or no cell differs between the settings.
    """
    if path.suffix == ".json":
        raise UserError(f"{_OPTION}: {path} is a record; expected a study file (.toml)")
    keys = _keys(settings)
    sides, name = [], ""
    for setting in settings:
        study = load_study(path, [*overrides, f"matrix.{setting.strip().removeprefix('matrix.')}"])
        study = study.model_copy(update={"repeats": 1, "baselines": False})
        name = f"{study.name}-{_slug(settings[0])}-vs-{_slug(settings[1])}"
        sides.append([cell.model_copy(update={"study": name}) for cell in expand(study)])
    pairs, left_out = _pair_cells(sides[0], sides[1], keys, settings)
    return InterleavedRuns(name, settings, keys, pairs, left_out)


def _keys(settings: tuple[str, str]) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for setting in settings:
        key, equals, _ = setting.partition("=")
        key = key.strip().removeprefix("matrix.")
        table, _, name = key.partition(".")
        if not equals or (key not in AXES and (table not in SECTIONS or not name)):
            raise UserError(
                f"{_OPTION} {setting}: expected KEY=VALUE of a cell, e.g. training.compile=true or matrix.batch_size=[8]"
            )
        if key == "training.seeds":
            raise UserError(f"{_OPTION} {setting}: both sides train with the study's seeds")
        keys |= dict.fromkeys((*_BATCH_AXES, key) if key in (*_BATCH_AXES, "device") else (key,))
    return tuple(keys)


def _pair_cells(
    a_cells: Sequence[Cell], b_cells: Sequence[Cell], keys: tuple[str, ...], settings: tuple[str, str]
) -> tuple[tuple[tuple[Cell, Cell], ...], tuple[str, ...]]:
    """Pair the cells that differ only in `keys`; return the pairs, and a sentence with the reason per unpaired cell."""
    sides = [{hash_config(cell.config, ignore=keys): cell for cell in side} for side in (a_cells, b_cells)]
    for cells, setting in zip((a_cells, b_cells), settings, strict=True):
        counts = Counter(hash_config(cell.config, ignore=keys) for cell in cells)
        if any(count > 1 for count in counts.values()):
            raise UserError(f"{_OPTION} {setting}: gives some cells several values; each side has one")
    pairs, left_out = [], []
    for common in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = sides[0].get(common), sides[1].get(common)
        if a is None or b is None:
            unpaired, side = (b, "A") if a is None else (a, "B")
            left_out.append(f"{unpaired.label if unpaired else ''}: the study has no such cell under {side}.")
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
    """Make a setting part of a folder name: `training.lr=1e-3` becomes `lr-1e-3`."""
    key, _, value = setting.strip().removeprefix("matrix.").partition("=")
    text = f"{key.rpartition('.')[2].strip()}={value}".replace("=", "-")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:_MAX_SETTING_CHARS].strip("_")
