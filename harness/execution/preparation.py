"""Prepare the inputs of all cells before the first cell runs: rows, splits, tokens and model files."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

from harness.dataset.cache import Cache
from harness.dataset.corpus import Corpus, load_corpus, require_labels_in_splits, write_texts
from harness.dataset.row_storage import Rows
from harness.dataset.rows import read_rows, rows_key
from harness.dataset.sources import ModelFiles, locate_model
from harness.dataset.tokens import TokenizedSplits, tokenize
from harness.execution.jobs import BaselineJob, FeaturesJob, PreparedCell, TrainJob
from harness.schema.cells import BaselineConfig, Cell
from harness.schema.encoder_families import FAMILIES, read_config
from harness.schema.settings import DataSettings, ModelSettings

_CHECK_BATCH = 16  # rows of a batch that is compared with the model's own forward pass, at most


def require_meaningful_accuracy(cell: Cell, prepared: PreparedCell) -> None:
    """Raise UserError if a split has a single label, unless the cell measures speed and memory alone."""
    config = cell.config
    if isinstance(config, BaselineConfig) or config.is_judged:
        require_labels_in_splits(prepared.data, config.data)


class Preparations:
    """Rows, corpora and tokens of one run, each prepared only once. Large data comes from the cache."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._cache = folder, Cache()
        self._rows: dict[str, Rows] = {}
        self._corpora: dict[DataSettings, Corpus] = {}
        self._texts_folders: dict[DataSettings, Path] = {}
        self._models: dict[tuple[str, bool], ModelFiles] = {}
        self._tokens: dict[tuple[DataSettings, str, int], TokenizedSplits] = {}

    def prepare(self, cell: Cell) -> PreparedCell:
        """Return a cell's inputs, and prepare those that no earlier cell needed.

        Raises:
            UserError: The cell's model or data is unusable.
        """
        config = cell.config
        corpus = self._corpus(config.data)
        if isinstance(config, BaselineConfig):
            return self._prepare_baseline(config, corpus)
        model = self._model(config.model)
        tokens = self._tokenize(config.data, config.seq_len, corpus, model)
        job = TrainJob(config, model, tokens.folder, corpus.facts.labels)
        if config.model.shape is None and read_config(model.folder).get("model_type") not in FAMILIES:
            job = replace(job, check_texts=_first_rows(corpus, 2 * min(_CHECK_BATCH, config.device_batch(1))))
        texts = corpus.texts["test"]
        read_texts = (lambda rows: [texts[row] for row in rows]) if config.data.store_texts else None
        return PreparedCell(job, tokens.facts, tokens.example, tokens.tokenise_s, read_texts)

    def _prepare_baseline(self, config: BaselineConfig, corpus: Corpus) -> PreparedCell:
        if config.model is None or config.seq_len is None:
            folder = self._texts_folder(config.data, corpus)
            return PreparedCell(BaselineJob(config, folder), corpus.facts, example=None, tokenise_s=None)
        model = self._model(config.model)
        tokens = self._tokenize(config.data, config.seq_len, corpus, model)
        return PreparedCell(FeaturesJob(config, model, tokens.folder), tokens.facts, None, tokens.tokenise_s)

    def _corpus(self, data: DataSettings) -> Corpus:
        if data not in self._corpora:
            key = rows_key(data)
            if key not in self._rows:
                self._rows[key] = read_rows(data, self._cache)
            self._corpora[data] = load_corpus(data, self._rows[key])
        return self._corpora[data]

    def _texts_folder(self, data: DataSettings, corpus: Corpus) -> Path:
        """Return the folder of the splits' texts; only baselines that read texts put them on the disk."""
        if data not in self._texts_folders:
            folder = self._folder / f"texts{len(self._texts_folders)}"
            write_texts(corpus, folder)
            self._texts_folders[data] = folder
        return self._texts_folders[data]

    def _model(self, settings: ModelSettings) -> ModelFiles:
        needs_weights = settings.init == "pretrained"
        key = (settings.name, needs_weights)
        if key not in self._models:
            self._models[key] = locate_model(settings.name, weights=needs_weights)
        return self._models[key]

    def _tokenize(self, data: DataSettings, seq_len: int, corpus: Corpus, model: ModelFiles) -> TokenizedSplits:
        key = (data, model.name, seq_len)
        if key not in self._tokens:
            folder = self._folder / f"tokens{len(self._tokens)}"
            self._tokens[key] = tokenize(
                corpus, model, seq_len, folder, store_texts=data.store_texts, cache=self._cache
            )
        return self._tokens[key]


def _first_rows(corpus: Corpus, num_rows: int) -> tuple[tuple[str, str | None], ...]:
    texts = list(islice(corpus.texts["train"], num_rows))
    pairs = [None] * len(texts) if corpus.pairs is None else list(islice(corpus.pairs["train"], num_rows))
    return tuple(zip(texts, pairs, strict=True))
