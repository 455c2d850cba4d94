"""A loaded model with its tokenizer that predicts the labels of a window of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig, PreTrainedModel

from harness.dataset.sources import ModelFiles
from harness.dataset.text_stream import TextWindow
from harness.dataset.tokenizer_files import load_tokenizer
from harness.errors import UserError
from harness.schema.predict_job import PredictJob
from harness.schema.settings import ModelSettings, padded_length
from harness.worker.checkpoint_loading import load_checkpoint
from harness.worker.collate import attention_mask
from harness.worker.device import Unsupported, product_dtype, set_matmul_precision
from harness.worker.evaluation import pad_id
from harness.worker.family_check import added_padding, require_own_logits
from harness.worker.model import attention_of, check_settings, check_tokens, family_of

_PROBABILITY_DIGITS = 6


@dataclass
class PredictCounts:
    """Counts of what one run has predicted so far.

    Attributes:
        num_tokens: Tokens, excluding padding.
        num_padded_tokens: Tokens, including padding.
        num_truncated: Texts that were cut to `seq_len` tokens.
    """

    num_rows: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_truncated: int = 0


class Predictor:
    """A model and its tokenizer, ready to predict."""

    def __init__(self, job: PredictJob) -> None:
        """Load model and tokenizer.

        Raises:
            UserError: If the folder holds no trained classifier, or `seq_len` exceeds the model's positions.
        """
        self._job = job
        self.device = torch.device("cuda" if job.device == "gpu" else "cpu")
        torch.set_num_threads(job.threads)
        set_matmul_precision(job.precision)
        self._model = _load_model(job)
        self._model.to(self.device)  # type: ignore[arg-type]  # the type stub lacks the method's `self`
        self._model.eval()
        self._tokenizer, _ = load_tokenizer(ModelFiles(job.model, "local", Path(job.model), None))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(job.seq_len)
        self._uses_types = job.pair is not None and getattr(self._model.config, "type_vocab_size", 1) > 1
        names: Any = self._model.config.id2label
        self.labels = [str(names[index]) for index in range(len(names))]
        self.counts = PredictCounts()
        self._is_unchecked = family_of(self._model) is None

    def predict(self, window: TextWindow) -> tuple[pa.Table, int]:
        """Predict a window of rows; return the output's rows, and how many of them had no text."""
        rows = [row for row, text in enumerate(window.texts) if text is not None]
        inputs: list[Any] = [window.texts[row] for row in rows]
        if window.pairs is not None:
            inputs = [(window.texts[row], window.pairs[row]) for row in rows]
        encodings = self._tokenizer.encode_batch_fast(inputs)
        if self._is_unchecked and rows:
            self._check_family(window, rows[: 2 * self._job.batch_size], encodings)
        probabilities = np.full((len(window.texts), len(self.labels)), np.nan)
        if rows:
            probabilities[rows] = self._probabilities(encodings)
        self.counts.num_rows += len(window.texts)
        self.counts.num_tokens += sum(len(encoding.ids) for encoding in encodings)
        self.counts.num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        return output_table(window, probabilities, self.labels), len(window.texts) - len(rows)

    def _probabilities(self, encodings: list[Any]) -> np.ndarray:
        """Return each label's probability, `(rows, labels)`; batches hold texts of similar length."""
        order = np.argsort([-len(encoding.ids) for encoding in encodings], kind="stable")
        outputs = []
        for begin in range(0, len(order), self._job.batch_size):
            batch = [encodings[row] for row in order[begin : begin + self._job.batch_size]]
            width = padded_length(_longest(batch), self._job.pad_multiple, self._job.seq_len)
            self.counts.num_padded_tokens += width * len(batch)
            outputs.append(self._logits(batch, width).float().softmax(dim=-1))
        probabilities = np.empty((len(encodings), len(self.labels)))
        probabilities[order] = torch.cat(outputs).cpu().numpy()
        return probabilities

    def _check_family(self, window: TextWindow, rows: list[int], encodings: list[Any]) -> None:
        """Compare an architecture of no tested family with its own forward pass, of the first two batches, in fp32."""
        size = self._job.batch_size
        halves = [encodings[begin : begin + size] for begin in range(0, len(rows), size)]
        texts = [(str(window.texts[row]), window.pairs[row] if window.pairs else None) for row in rows]
        set_matmul_precision("fp32")
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            num_added = added_padding(self._model, max(map(_longest, halves)))
            logits = torch.cat([self._logits(half, _longest(half) + num_added) for half in halves]).float()
            try:
                require_own_logits(self._model, Path(self._job.model), texts, logits, self._job.seq_len)
            except Unsupported as error:
                raise UserError(f"model {self._job.model}: {error}") from None
        set_matmul_precision(self._job.precision)
        self._is_unchecked = False

    def _logits(self, batch: list[Any], width: int) -> torch.Tensor:
        """Return the logits of a batch of encodings, `(batch, labels)`, each padded to `width` tokens."""
        ids = _padded([encoding.ids for encoding in batch], width, pad_id(self._model))
        try:
            check_tokens(self._model, int(ids.max()))
        except Unsupported as error:
            raise UserError(f"model {self._job.model}: {error}") from None
        mask = _padded([encoding.attention_mask for encoding in batch], width)
        inputs = {"input_ids": ids}
        if self._uses_types:
            inputs["token_type_ids"] = _padded([encoding.type_ids for encoding in batch], width)
        attended = attention_mask(
            mask.to(self.device), self._model.config,
            padded=not bool(mask.all()), dtype=product_dtype(self._job.precision),
        )  # fmt: skip
        inputs = {name: values.to(self.device) for name, values in inputs.items()}
        return self._model(**inputs, attention_mask=attended).logits  # type: ignore[no-any-return]


def output_table(window: TextWindow, probabilities: np.ndarray, labels: list[str]) -> pa.Table:
    """Build the output's rows: row number, copied columns, predicted label, and each label's probability.

    Args:
        window: The rows' texts and copied columns.
        probabilities: `(rows, labels)`; NaN in rows without a text, which get no label.
        labels: The labels' names.
    """
    missing = np.isnan(probabilities[:, 0])
    likeliest = np.where(missing, 0, np.nan_to_num(probabilities).argmax(axis=1))
    predicted = [None if is_missing else labels[index] for index, is_missing in zip(likeliest, missing, strict=True)]
    columns: dict[str, Any] = {"row": pa.array(range(window.first_row, window.first_row + len(missing)), pa.int64())}
    columns |= {name: window.carried.column(name) for name in window.carried.column_names}
    columns["predicted"] = pa.array(predicted, pa.string())
    rounded = np.round(probabilities, _PROBABILITY_DIGITS)
    for index, label in enumerate(labels):
        columns[f"p:{label}"] = pa.array(rounded[:, index], pa.float64(), from_pandas=True)
    return pa.table(columns)


def _load_model(job: PredictJob) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(job.model, local_files_only=True, trust_remote_code=False)
    try:
        options = {
            "attn_implementation": attention_of(config, job.attention),
            "dtype": torch.float32,
            "trust_remote_code": False,
        }
        model, weights = load_checkpoint(Path(job.model), config, (), options)
        check_settings(model, ModelSettings(), "all", job.seq_len, job.precision)
    except Unsupported as error:
        raise UserError(f"model {job.model}: {error}") from None
    if weights.new:
        raise UserError(
            f"model {job.model}: not trained to classify: its weights lack {', '.join(weights.new[:4])}; "
            "training.keep_model = true saves a model that is"
        )
    return model


def _longest(batch: list[Any]) -> int:
    return max(len(encoding.ids) for encoding in batch)


def _padded(rows: list[list[int]], width: int, fill: int = 0) -> torch.Tensor:
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)
