"""Load a model's tokenizer as transformers would: tokenizer.json or a BERT's vocab.txt, and what tokenizer_config.json says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.dataset.sources import ModelFiles
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.encoder_families import FAMILIES, read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Keys of tokenizer_config.json, and what BERT's normalizer calls them.
_NORMALIZER_KEYS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"} | {
    "tokenize_chinese_chars": "handle_chinese_chars"
}
# Tokenizers of any kind: transformers takes tokenizer.json for these as it is.
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_CURE = "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) writes tokenizer.json"


def load_tokenizer(model: ModelFiles) -> tuple[Tokenizer, str]:
    """Load a model's tokenizer; return it with a SHA-256: of its file, or of itself if tokenizer_config.json changes it.

    Raises:
        UserError: If the model's folder contains no tokenizer, or one that can't be read.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    settings = _read_settings(model)
    path = model.folder / "tokenizer.json"
    if path.is_file():
        return _configured(_parsed(model.name, path, Tokenizer.from_file), settings, path)
    path = model.folder / "vocab.txt"
    if not path.is_file():
        raise UserError(f"model {model.name!r}: its folder has no tokenizer.json and no vocab.txt; {_CURE}")
    model_type = read_config(model.folder).get("model_type")
    family = FAMILIES.get(str(model_type))
    if model_type is not None and (family is None or not family.wordpiece):
        raise UserError(
            f"model {model.name!r}: a vocab.txt alone doesn't define the tokenizer of {model_type!r}; {_CURE}"
        )
    tokenizer = _parsed(model.name, path, lambda name: Tokenizer.from_str(BertWordPieceTokenizer(name).to_str()))
    return _configured(tokenizer, settings, path)


def unknown_token_id(tokenizer: Tokenizer) -> int | None:
    """Return the id of the token for what is not in the vocabulary; None if the tokenizer has none."""
    model = json.loads(tokenizer.to_str())["model"]
    if "unk_id" in model:
        return model["unk_id"]  # type: ignore[no-any-return]
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None


def token_beyond_vocabulary(token_id: int, num_embeddings: int) -> str:
    """Say that the tokenizer gives a token that the model has no embedding for."""
    return (
        f"its tokenizer gives token {token_id}, but the model has {num_embeddings} embeddings (vocab_size): the tokenizer is another "
        "model's, or the embeddings were not resized for added tokens"
    )


def _read_settings(model: ModelFiles) -> dict[str, Any]:
    path = model.folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model {model.name!r}: tokenizer_config.json can't be read: {error}") from None
    return settings if isinstance(settings, dict) else {}


def _parsed(name: str, path: Path, parse: Callable[[str], Tokenizer]) -> Tokenizer:
    try:
        return parse(str(path))
    except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exceptions
        reason = (str(error).splitlines() or ["no message"])[0][:120]
        raise UserError(f"model {name!r}: {path.name} is damaged ({reason}): get it again") from None


def _configured(tokenizer: Tokenizer, settings: Mapping[str, Any], path: Path) -> tuple[Tokenizer, str]:
    """Change BERT's normalizer as tokenizer_config.json states; a key that it doesn't state stays as in the file."""
    fields = json.loads(tokenizer.to_str())
    normalizer = fields.get("normalizer") or {}
    stated = {theirs: settings[key] for key, theirs in _NORMALIZER_KEYS.items() if key in settings}
    is_bert = normalizer.get("type") == "BertNormalizer" and settings.get("tokenizer_class") not in _GENERIC_CLASSES
    if not is_bert or stated.items() <= normalizer.items():
        return tokenizer, cached_sha256(path)
    fields["normalizer"] = normalizer | stated
    text = json.dumps(fields)
    return type(tokenizer).from_str(text), hashlib.sha256(text.encode()).hexdigest()
