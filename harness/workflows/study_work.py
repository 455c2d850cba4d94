"""What each cell of a study computes, known before it runs on any machine: its model's sizes and its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.dataset.corpus import SPLITS, Corpus, load_corpus
from harness.dataset.sources import locate_model, read_model_shape
from harness.dataset.tokens import load_tokens, tokenize
from harness.errors import UserError
from harness.execution.planned_work import plan_cell
from harness.machine.private_folders import private_folder
from harness.schema.cells import Cell, FineTuneConfig, hash_config
from harness.schema.model_shapes import ModelShape
from harness.schema.probe_record import CellWork
from harness.schema.settings import DataSettings, ModelSettings

Lengths = dict[str, np.ndarray]  # tokens of each row, by split

_LONGEST = 8192  # the longest `seq_len`


@dataclass(frozen=True)
class StudyCell:
    """A cell that trains, without its seed and repeat.

    Attributes:
        lengths: Tokens of each row by split.
        num_runs: How often the study runs it: seeds x repeats.
    """

    name: str
    config: FineTuneConfig
    shape: ModelShape
    lengths: Lengths
    num_runs: int

    def work(self, world_size: int) -> CellWork:
        """Return what the cell computes with a number of ranks."""
        train, val, test = (self.lengths[split] for split in SPLITS)
        return plan_cell(self.config, train, val, test, world_size).work


@dataclass(frozen=True)
class StudyWork:
    """The cells of a study, and a note on how the lengths of their rows are known."""

    cells: tuple[StudyCell, ...]
    note: str


def plan_study(cells: Sequence[Cell]) -> StudyWork:
    """Plan the cells that train, by the real lengths of their rows if the data is here.

    Without the data, or without the package that reads a tokenizer, each row counts as long as `seq_len`.

    Raises:
        UserError: If no cell trains, a model's sizes can't be read, or `num_train = "all"` of data that is not here.
    """
    runs: dict[str, list[Cell]] = {}
    for cell in cells:
        if isinstance(cell.config, FineTuneConfig):
            runs.setdefault(hash_config(cell.config, ignore=("seed",)), []).append(cell)
    if not runs:
        raise UserError("this study has no cell that trains a model")
    reader = _LengthReader()
    shapes: dict[ModelSettings, ModelShape] = {}
    planned = []
    for same in runs.values():
        config = same[0].config
        assert isinstance(config, FineTuneConfig)  # noqa: S101 - only those were kept
        if config.model not in shapes:
            shapes[config.model] = read_model_shape(config.model)
        planned.append(StudyCell(same[0].name, config, shapes[config.model], reader.lengths(config), len(same)))
    return StudyWork(tuple(planned), reader.note)


class _LengthReader:
    """Reads the lengths of each data set's rows, once for each tokenizer; remembers why it could not."""

    def __init__(self) -> None:
        self._corpora: dict[DataSettings, Corpus] = {}
        self._known: dict[tuple[DataSettings, str], Lengths] = {}
        self._missing: str | None = None

    @property
    def note(self) -> str:
        """How the lengths are known."""
        if self._missing is not None:
            return f"every row counts as padded to seq_len ({self._missing})"
        return "batches of the real rows" if self._known else "every row is padded to seq_len"

    def lengths(self, config: FineTuneConfig) -> Lengths:
        """Return the lengths of a cell's rows, at most `seq_len`."""
        data = config.data
        if config.padding == "max" and data.num_train != "all":
            return _padded(config, data.num_train)
        try:
            read = self._read(data, config.model.name)
        except (UserError, ImportError) as error:
            if data.num_train == "all":
                raise UserError(f'data.num_train = "all" needs the data, to count its rows: {error}') from None
            self._missing = self._missing or str(error)
            return _padded(config, data.num_train)
        return {split: np.minimum(lengths, config.seq_len) for split, lengths in read.items()}

    def _read(self, data: DataSettings, model: str) -> Lengths:
        key = (data, model)
        if key not in self._known:
            files = locate_model(model, weights=False)
            if data not in self._corpora:
                self._corpora[data] = load_corpus(data)
            with private_folder("shortlist") as folder:
                tokens = tokenize(self._corpora[data], files, _LONGEST, folder / "tokens", store_texts=False)
                self._known[key] = {split: np.array(load_tokens(tokens.folder, split).lengths) for split in SPLITS}
        return self._known[key]


def _padded(config: FineTuneConfig, num_train: int) -> Lengths:
    sizes = {"train": num_train, "val": config.data.num_val, "test": config.data.num_test}
    return {split: np.full(num_rows, config.seq_len) for split, num_rows in sizes.items()}
