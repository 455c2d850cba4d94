"""Load or create the model, freeze its lower layers, and describe it for the record."""

from __future__ import annotations

import re
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, PreTrainedConfig, PreTrainedModel

from harness.dataset.model_folder import weight_files
from harness.dataset.sources import ModelFiles
from harness.schema.inputs_record import ModelFacts
from harness.schema.model_shapes import STANDARD_SHAPES
from harness.schema.settings import ModelSettings
from harness.worker.device import Unsupported

# The layer's number in parameter names: BERT's `encoder.layer.3.`, DistilBERT's `transformer.layer.3.`.
_LAYER = re.compile(r"\.layer\.(\d+)\.")


def build_model(files: ModelFiles, settings: ModelSettings, num_labels: int) -> PreTrainedModel:
    """Load or initialize the model with fp32 weights, whatever the checkpoint's dtype is.

    Raises:
        UserError: If the folder holds no checkpoint.
    """
    config = _model_config(files, settings, num_labels)
    options: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": torch.float32, "trust_remote_code": False}
    if settings.init == "random":
        model = AutoModelForSequenceClassification.from_config(config, **options)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            files.folder, config=config, local_files_only=True, use_safetensors=True, **options
        )
    other_dtypes = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    assert not other_dtypes, f"weights were loaded as {other_dtypes}"  # noqa: S101 - a bug, not the user's mistake
    return model  # type: ignore[no-any-return]


def check_positions(model: PreTrainedModel, seq_len: int) -> None:
    """Raise Unsupported if the model's position embeddings are fewer than `seq_len`."""
    num_positions = model.config.max_position_embeddings
    if seq_len > num_positions:
        raise Unsupported(f"seq_len {seq_len} is beyond this model's {num_positions} positions")


def freeze_encoder_below(model: PreTrainedModel, num_trained_layers: int) -> None:
    """Freeze the encoder except for its last `num_trained_layers` layers; the head, with BERT's pooler, stays trainable.

    Frozen layers need no gradient, so autograd saves none of their activations and runs no backward pass through them.
    """
    encoder: torch.nn.Module = model.base_model
    first_trained = model.config.num_hidden_layers - num_trained_layers
    for name, parameter in encoder.named_parameters():
        layer = _LAYER.search(name)
        parameter.requires_grad_(name.startswith("pooler.") or (layer is not None and int(layer[1]) >= first_trained))


def describe_model(model: PreTrainedModel, files: ModelFiles, settings: ModelSettings) -> ModelFacts:
    """Describe a built model for the record."""
    config = model.config
    attention_key, hidden_key = _dropout_keys(config)
    pretrained = settings.init == "pretrained"
    return ModelFacts(
        name=settings.shape or settings.name,
        origin=files.origin if pretrained else "random",
        sha256=files.sha256 if pretrained else None,
        architecture=type(model).__name__,
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        intermediate_size=getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 0),
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        attention_dropout=getattr(config, attention_key, None),
        hidden_dropout=getattr(config, hidden_key, None),
        checkpoint_dtype=_checkpoint_dtype(files) if pretrained else None,
        attention=getattr(config, "_attn_implementation", None),
        hub=files.hub,
    )


def _model_config(files: ModelFiles, settings: ModelSettings, num_labels: int) -> PreTrainedConfig:
    if settings.shape is not None:
        hidden, layers, heads = STANDARD_SHAPES[settings.shape]
        config: PreTrainedConfig = BertConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden
        )
    else:
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    config.num_labels = num_labels
    if settings.num_layers is not None:
        config.num_hidden_layers = min(settings.num_layers, config.num_hidden_layers)
    attention_key, hidden_key = _dropout_keys(config)
    if settings.attention_dropout is not None:
        setattr(config, attention_key, settings.attention_dropout)
    if settings.hidden_dropout is not None:
        setattr(config, hidden_key, settings.hidden_dropout)
        for head_key in ("classifier_dropout", "seq_classif_dropout"):
            if hasattr(config, head_key):
                setattr(config, head_key, settings.hidden_dropout)
    return config


def _dropout_keys(config: PreTrainedConfig) -> tuple[str, str]:
    if config.model_type == "distilbert":
        return "attention_dropout", "dropout"
    return "attention_probs_dropout_prob", "hidden_dropout_prob"


def _checkpoint_dtype(files: ModelFiles) -> str | None:
    dtypes: set[str] = set()
    for file in weight_files(files.folder):
        with safe_open(file, framework="pt") as tensors:
            dtypes |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - not a mapping
    return "+".join(sorted(dtypes)) or None
