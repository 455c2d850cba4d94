"""The baseline `features`: logistic regression on the mean-pooled hidden states of the frozen encoder.

Every layer's states come from one forward pass over each row. Layer and regularization are chosen on the validation set;
then the test set is encoded, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from harness.dataset.tokens import TokenArrays, largest_token_id, load_tokens
from harness.execution.baselines import MAX_FITTED_ROWS
from harness.execution.jobs import FeaturesJob
from harness.execution.messages import PhaseStarted, RankResult
from harness.machine.malloc import mmap_large_blocks
from harness.schema.encoder_families import TESTED
from harness.schema.inputs_record import ModelFacts
from harness.schema.scores import accuracy, macro_f1
from harness.schema.settings import padded_length
from harness.schema.training_record import Baseline, FeatureChoice, TestEvaluation
from harness.worker.accelerated import require_precision
from harness.worker.collate import attention_mask, collate, token_types
from harness.worker.device import Unsupported, bind_gpu, set_matmul_precision, silence_transformers
from harness.worker.evaluation import pad_id, segment_ids
from harness.worker.linear_probe import C_VALUES, Probe, fit_probes, load_libraries, most_accurate
from harness.worker.meters import MemoryMeter
from harness.worker.model import LoadedModel, check_settings, check_tokens, describe_model, family_of, load_model
from harness.worker.progress import Send

# Most tokens of a batch, padding included: a batch's hidden states of all layers are in memory at once (21 MiB for 6
# layers of width 384, 200 MiB for 24 of width 1024). On a CPU, batches of 4,096 tokens were no faster.
_BATCH_TOKENS = 2048
# Most bytes of the training rows' pooled states, which are in memory until all classifiers are fitted.
MAX_STATE_BYTES = 2**30


def run_features(job: FeaturesJob, send: Send, began: float) -> RankResult:
    """Encode the training rows, fit the probes, choose one on the validation rows, and evaluate it on the test rows.

    Args:
        job: The model and the tokens.
        send: Sends a message to the parent.
        began: When this process began, on the clock of `time.perf_counter`.
    """
    encoder, facts = _load(job)
    train, val = (load_tokens(job.tokens_folder, split) for split in ("train", "val"))
    send(PhaseStarted("train", load_s=time.perf_counter() - began))
    memory = MemoryMeter(encoder.device, rank=0)
    memory.reset()
    began_training = time.perf_counter()
    rows = fitted_rows(len(train.labels), encoder.bytes_per_row)
    probes, fit_s = _fit(encoder, train, rows)
    val_labels, val_predictions = val.labels.tolist(), encoder.predict(val, probes)
    accuracies = [accuracy(val_labels, predictions.tolist()) for predictions in val_predictions]
    best = most_accurate(probes, accuracies)
    train_s = time.perf_counter() - began_training

    send(PhaseStarted("test"))
    test = _evaluate(encoder, probes[best], load_tokens(job.tokens_folder, "test"))
    baseline = Baseline(
        train_s=train_s,
        num_fitted=len(rows),
        peak_memory=memory.peaks(),
        test=test,
        val_accuracy=accuracies[best],
        val_macro_f1=macro_f1(val_labels, val_predictions[best].tolist()),
        features=FeatureChoice(
            layer=probes[best].layer,
            c=probes[best].c,
            c_values=C_VALUES,
            val_accuracies=_by_layer(accuracies),
            fit_s=fit_s,
            num_threads=torch.get_num_threads(),
        ),
    )
    result = RankResult("ok", baseline=baseline, encoder=facts, cpu_s=time.process_time())
    send(PhaseStarted("after"))
    return result


@dataclass(frozen=True)
class Encoder:
    """A frozen model without a head, on its device.

    Attributes:
        seq_len: Maximum tokens per row.
        pad_multiple: Each batch's length is a multiple of this, or `seq_len`.
    """

    model: PreTrainedModel
    device: torch.device
    seq_len: int
    pad_multiple: int = 1

    @property
    def num_layers(self) -> int:
        """Number of layers with states: the embeddings and the model's own."""
        return int(self.model.config.num_hidden_layers) + 1

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row's pooled states of all layers."""
        return self.num_layers * int(self.model.config.hidden_size) * np.dtype(np.float32).itemsize

    def encode_all(self, tokens: TokenArrays, rows: np.ndarray) -> np.ndarray:
        """Return the pooled states of some rows, `(layers, rows, hidden)` float32.

        Args:
            tokens: The split's token ids.
            rows: Row indices in ascending order.
        """
        states = np.empty((self.num_layers, len(rows), self.model.config.hidden_size), np.float32)
        for batch, pooled in self.encode(tokens, rows):
            states[:, np.searchsorted(rows, batch)] = pooled
        return states

    def predict(self, tokens: TokenArrays, probes: Sequence[Probe]) -> np.ndarray:
        """Return each probe's label for each row of a split, `(probes, rows)`; states are dropped batch by batch."""
        predictions = np.empty((len(probes), len(tokens.labels)), np.int32)
        for batch, pooled in self.encode(tokens, np.arange(len(tokens.labels))):
            for index, probe in enumerate(probes):
                predictions[index, batch] = probe.predict(pooled[probe.layer])
        return predictions

    def encode(self, tokens: TokenArrays, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of row indices with the rows' pooled states, `(layers, batch, hidden)` float32.

        Batches hold rows of similar length, the longest first, so that memory peaks at the beginning.
        """
        by_length = rows[np.argsort(-tokens.lengths[rows], kind="stable")]
        first = 0
        while first < len(by_length):
            width = padded_length(tokens.longest(by_length[first : first + 1]), self.pad_multiple, self.seq_len)
            batch = by_length[first : first + max(1, _BATCH_TOKENS // width)]
            first += len(batch)
            yield batch, self._encode_batch(tokens, batch, width)

    @torch.inference_mode()
    def _encode_batch(self, tokens: TokenArrays, batch: np.ndarray, width: int) -> np.ndarray:
        ids, mask, _, num_real = collate(tokens, batch, pad_to=width, pad_id=pad_id(self.model))
        mask = mask.to(self.device)
        outputs = self.model(
            input_ids=ids.to(self.device),
            attention_mask=attention_mask(mask, self.model.config, padded=num_real < ids.numel()),
            output_hidden_states=True,
            **segment_ids(self.model, token_types(tokens, batch, ids.shape[1]), self.device),
        )
        return mean_pool(outputs.hidden_states, mask).cpu().numpy()


def mean_pool(hidden_states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Average each layer's states over a row's tokens, special tokens included and padding excluded.

    Args:
        hidden_states: One tensor for each layer, `(batch, seq, hidden)`.
        mask: Attention mask, `(batch, seq)`.

    Returns:
        `(layers, batch, hidden)` float32.
    """
    weights = (mask / mask.sum(dim=1, keepdim=True))[:, None]  # (batch, 1, seq)
    # Convert before averaging: a sum of 16-bit states would lose digits.
    return torch.stack([(weights @ states.float())[:, 0] for states in hidden_states])


def fitted_rows(num_rows: int, bytes_per_row: int) -> np.ndarray:
    """Return the indices of the training rows to fit on: all, or every second, third, ... if these are too many."""
    max_rows = max(1, min(MAX_FITTED_ROWS, MAX_STATE_BYTES // bytes_per_row))
    return np.arange(0, num_rows, -(-num_rows // max_rows))


def _load(job: FeaturesJob) -> tuple[Encoder, ModelFacts]:
    """Prepare this process as for a fine-tuning in fp32, and load the model without its head."""
    config = job.config
    assert config.model is not None and config.seq_len is not None  # noqa: S101 - BaselineConfig checks this
    torch.set_num_threads(job.num_threads)
    silence_transformers()
    device = bind_gpu(memory_limit_gib=config.limits.memory_limit_gib) if config.on_gpu else torch.device("cpu")
    set_matmul_precision("fp32")
    require_precision("fp32", device, allow_slow=False)
    if config.allocator == "mmap":
        mmap_large_blocks()
    load_libraries()  # so that no figure includes their import
    # The model that is fine-tuned, loaded in the same way; its head is dropped.
    loaded = load_model(job.model, config.model)
    model, weights = loaded.model.base_model, loaded.weights
    if weights is not None:
        weights = weights.model_copy(update={"head": "dropped", "head_reason": None, "new": ()})
    assert isinstance(model, PreTrainedModel)  # noqa: S101 - for the type checker
    if family_of(model) is None:
        raise Unsupported(
            f"features: the layers of the architecture {model.config.model_type!r} are not known; take one of {TESTED}"
        )
    check_settings(model, config.model, "head", config.seq_len)
    check_tokens(model, largest_token_id(job.tokens_folder))
    model.requires_grad_(False).to(device)  # type: ignore[arg-type]  # the type stub lacks the method's `self`
    model.eval()
    encoder = Encoder(model, device, config.seq_len, config.pad_multiple)
    return encoder, describe_model(LoadedModel(model, weights), job.model, config.model)


def _fit(encoder: Encoder, train: TokenArrays, rows: np.ndarray) -> tuple[list[Probe], float]:
    """Fit the probes on some training rows, whose states are dropped again; return them and the seconds of fitting."""
    states = encoder.encode_all(train, rows)
    began = time.perf_counter()
    return fit_probes(states, train.labels[rows]), time.perf_counter() - began


def _evaluate(encoder: Encoder, probe: Probe, test: TokenArrays) -> TestEvaluation:
    began = time.perf_counter()
    (predictions,) = encoder.predict(test, [probe])
    return TestEvaluation(
        evaluate_s=time.perf_counter() - began,
        labels=tuple(test.labels.tolist()),
        predictions=tuple(predictions.tolist()),
    )


def _by_layer(accuracies: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Group the probes' accuracies by layer."""
    num_values = len(C_VALUES)
    return tuple(tuple(accuracies[first : first + num_values]) for first in range(0, len(accuracies), num_values))
