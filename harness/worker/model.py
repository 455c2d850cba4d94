"""Load or create the model, freeze its lower layers, and describe it for the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, PreTrainedConfig, PreTrainedModel

from harness.dataset.model_folder import weight_files
from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import token_beyond_vocabulary
from harness.schema.encoder_families import FAMILIES, UNTESTED, Family, lacks_sdpa, max_tokens, refusal
from harness.schema.inputs_record import LoadedWeights, ModelFacts
from harness.schema.model_shapes import STANDARD_SHAPES
from harness.schema.settings import Attention, AttentionKind, ModelSettings
from harness.worker.checkpoint_loading import load_checkpoint, set_labels
from harness.worker.device import Unsupported


@dataclass(frozen=True)
class LoadedModel:
    """A model, and how its weights were loaded; None for random weights."""

    model: PreTrainedModel
    weights: LoadedWeights | None


def load_model(files: ModelFiles, settings: ModelSettings, labels: Sequence[str] = ()) -> LoadedModel:
    """Load or initialize the model with fp32 weights, whatever the checkpoint's dtype is.

    Args:
        files: The model's files.
        settings: The study's `[model]`.
        labels: The data's labels in order; empty: keep the checkpoint's labels.

    Raises:
        Unsupported: If the checkpoint is not the model's.
    """
    config = _model_config(files, settings)
    options: dict[str, Any] = {
        "attn_implementation": attention_of(config, settings.attention),
        "dtype": torch.float32,
        "trust_remote_code": False,
    }
    weights = None
    if settings.init == "random":
        set_labels(config, labels)
        model = AutoModelForSequenceClassification.from_config(config, **options)
    else:
        model, weights = load_checkpoint(files.folder, config, labels, options)
    other_dtypes = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    assert not other_dtypes, f"weights were loaded as {other_dtypes}"  # noqa: S101 - a bug, not the user's mistake
    return LoadedModel(model, weights)


def build_model(files: ModelFiles, settings: ModelSettings, labels: Sequence[str] = ()) -> PreTrainedModel:
    """Return the model of `load_model`."""
    return load_model(files, settings, labels).model


def family_of(model: torch.nn.Module) -> Family | None:
    """Return the tested family of a model; None for other architectures."""
    config: Any = model.config
    return FAMILIES.get(config.model_type)


def attention_of(config: PreTrainedConfig, attention: Attention | None = None) -> AttentionKind:
    """Return the attention to load a model with: the one asked for, else `sdpa` if the architecture has it.

    Args:
        config: The model's configuration.
        attention: The study's `model.attention`; `auto` is chosen later.

    Raises:
        Unsupported: If the architecture can't classify texts, or has not the attention asked for.
    """
    try:
        architecture = AutoModelForSequenceClassification._model_mapping[type(config)]
    except KeyError:
        raise Unsupported(f"the architecture {config.model_type!r} has no classifier in transformers") from None
    has_sdpa = getattr(architecture, "_supports_sdpa", False)
    if attention == "sdpa" and not has_sdpa:
        family = FAMILIES.get(config.model_type)
        raise Unsupported(lacks_sdpa(family.name if family else f"the architecture {config.model_type!r}"))
    return "sdpa" if has_sdpa and attention != "eager" else "eager"


def check_settings(
    model: PreTrainedModel, settings: ModelSettings, trainable: str, seq_len: int, precision: str = "fp32"
) -> None:
    """Raise Unsupported if the model can't be trained with these settings.

    Args:
        model: The model.
        settings: The study's `[model]`.
        trainable: The cell's trained part.
        seq_len: The cell's maximum length in tokens.
        precision: The cell's precision.
    """
    reason = refusal(_sizes(model.config), settings, trainable, seq_len, precision)
    if reason is not None:
        raise Unsupported(reason)


def check_tokens(model: PreTrainedModel, largest_id: int) -> None:
    """Raise Unsupported if the model has no embedding for a token; looking it up would end in an error of an index."""
    embedding: Any = model.get_input_embeddings()
    num_embeddings = len(embedding.weight)
    if largest_id >= num_embeddings:
        raise Unsupported(token_beyond_vocabulary(largest_id, num_embeddings))


def freeze_encoder_below(model: PreTrainedModel, num_trained_layers: int) -> None:
    """Freeze the encoder except for its last `num_trained_layers` layers; the head, with the pooler, stays trainable.

    Frozen layers need no gradient, so autograd saves none of their activations and runs no backward pass through them.
    """
    encoder: torch.nn.Module = model.base_model
    encoder.requires_grad_(False)
    trained = [module for name, module in encoder.named_children() if name == "pooler" and module is not None]
    family = family_of(model)
    if num_trained_layers:
        assert family is not None  # noqa: S101 - `refusal` refuses topN for others
        layers = list(encoder.get_submodule(family.layers).children())
        # Of layers that share weights, `refusal` allows all to be trained, but no smaller number.
        trained += layers if family.shares_layers else layers[len(layers) - num_trained_layers :]
        trained += [encoder.get_submodule(name) for name in family.above_layers]
    for module in trained:
        module.requires_grad_(True)


def describe_model(loaded: LoadedModel, files: ModelFiles, settings: ModelSettings) -> ModelFacts:
    """Describe a built model for the record."""
    model, config = loaded.model, loaded.model.config
    family = family_of(model)
    attention_keys, hidden_keys = (family.attention_dropout, family.hidden_dropout) if family else ((None,), (None,))
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
        intermediate_size=_intermediate_size(config),
        vocab_size=config.vocab_size,
        max_positions=max_tokens(_sizes(config)),
        attention_dropout=getattr(config, attention_keys[0] or "", None),
        hidden_dropout=getattr(config, hidden_keys[0] or "", None),
        checkpoint_dtype=_checkpoint_dtype(files) if pretrained else None,
        attention=getattr(config, "_attn_implementation", None),
        hub=files.hub,
        family=family.name if family else UNTESTED,
        weights=loaded.weights,
    )


def _sizes(config: PreTrainedConfig) -> dict[str, Any]:
    keys = ("model_type", "max_position_embeddings", "pad_token_id", "num_hidden_layers")
    return {key: getattr(config, key, None) for key in keys}


def _model_config(files: ModelFiles, settings: ModelSettings) -> PreTrainedConfig:
    """Return the model's configuration with the study's layers and dropouts; `refusal` refuses these for untested families."""
    if settings.shape is not None:
        hidden, layers, heads = STANDARD_SHAPES[settings.shape]
        config: PreTrainedConfig = BertConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden
        )
    else:
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    family = FAMILIES.get(config.model_type)
    if family is None:
        return config
    if settings.num_layers is not None:
        config.num_hidden_layers = min(settings.num_layers, config.num_hidden_layers)
        if isinstance(getattr(config, "layer_types", None), list):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    if settings.attention_dropout is not None:
        _set_present(config, family.attention_dropout, settings.attention_dropout)
    if settings.hidden_dropout is not None:
        _set_present(config, (*family.hidden_dropout, *family.head_dropout), settings.hidden_dropout)
    return config


def _intermediate_size(config: PreTrainedConfig) -> int:
    """Return the width of the feed-forward part; of an untested architecture that calls it otherwise, the usual one."""
    names = (getattr(config, name, None) for name in ("intermediate_size", "hidden_dim", "d_inner"))
    return next((int(size) for size in names if isinstance(size, int) and size > 0), 4 * config.hidden_size)


def _set_present(config: PreTrainedConfig, keys: Sequence[str], value: float) -> None:
    for key in keys:
        if hasattr(config, key):
            setattr(config, key, value)


def _checkpoint_dtype(files: ModelFiles) -> str | None:
    dtypes: set[str] = set()
    for file in weight_files(files.folder):
        with safe_open(file, framework="pt") as tensors:
            dtypes |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - not a mapping
    return "+".join(sorted(dtypes)) or None
