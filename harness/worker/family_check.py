"""Compare an architecture that is in no tested family with its own forward pass of each text alone.

A wrong mask, padding side, segment or position changes logits without an error. Only equal logits show that what this package
passes is what the architecture expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from harness.schema.encoder_families import TESTED
from harness.worker.device import Unsupported

# In fp32. Padding changes the order of sums, which moves logits by about 1e-6; a wrong mask moves them by far more.
_TOLERANCE = 1e-4
_NUM_ADDED = 4

TextPair = tuple[str, str | None]


def added_padding(model: PreTrainedModel, longest: int) -> int:
    """Return how many tokens of padding to add to the longest row, so that rows of one length are compared padded too."""
    limit = getattr(model.config, "max_position_embeddings", None) or 0
    return _NUM_ADDED if limit < 1 else max(0, min(_NUM_ADDED, limit - longest))


def require_own_logits(
    model: PreTrainedModel, folder: Path, texts: Sequence[TextPair], logits: torch.Tensor, seq_len: int
) -> None:
    """Raise Unsupported unless the logits equal those of the model's own forward pass, text by text and unpadded.

    Args:
        model: The model, in evaluation mode, in fp32.
        folder: The model's folder, with its own tokenizer.
        texts: Each row's text, and its second text if the rows are pairs.
        logits: What the model gave for the rows in padded batches, `(rows, labels)`.
        seq_len: Maximum length in tokens.
    """
    own = _own_logits(model, folder, texts, seq_len)
    if not torch.allclose(logits, own, rtol=_TOLERANCE, atol=_TOLERANCE):
        difference = float((logits - own).abs().max())
        raise Unsupported(
            f"{_untested(model)}, and in a padded batch its logits differ by up to {difference:.2g} from its own forward pass of "
            f"each text alone; take one of {TESTED}"
        )


@torch.inference_mode()
def _own_logits(model: PreTrainedModel, folder: Path, texts: Sequence[TextPair], seq_len: int) -> torch.Tensor:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - each library behind it raises its own
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unsupported(
            f"{_untested(model)}, and its own tokenizer, with which it would be compared, can't be loaded: {first_line}"
        ) from None
    rows = []
    for text, pair in texts:
        inputs = tokenizer(text, pair, truncation=True, max_length=seq_len, return_tensors="pt")
        try:
            rows.append(model(**{name: values.to(model.device) for name, values in inputs.items()}).logits[0])
        except (TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
            raise Unsupported(f"{_untested(model)}, and its own forward pass fails: {error}") from None
    return torch.stack(rows).float()


def _untested(model: PreTrainedModel) -> str:
    return f"the architecture {model.config.model_type!r} was never tested"
