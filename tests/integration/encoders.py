"""A tiny checkpoint of every tested family, and of two architectures that are in no family, with its own tokenizer files.

Each has 2 layers (ModernBERT 4, of which two slide), width 32 and random weights; its tokenizer is of the kind that the
family's published checkpoints have, trained on a few sentences.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WORDS = [
    "superb",
    "dreadful",
    "banana",
    "umbrella",
    "giraffe",
    "volcano",
    "saxophone",
    "teapot",
    "zeppelin",
    "walrus",
    "cactus",
    "lantern",
    "Paris",
    "London",
    "quickly",
    "unbelievably",
    "film",
    "actor",
    "scene",
]
LABELS = ("bad", "good")
VOCAB_SIZE = 300
_SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": VOCAB_SIZE,
    "id2label": dict(enumerate(LABELS)),
}  # fmt: skip
_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
    "cls_token": "<s>", "sep_token": "</s>",
}  # fmt: skip


def texts(num: int = 60, longest: int = 30, seed: int = 0) -> list[str]:
    """Return texts of 1 to `longest` words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(num)]


def wordpiece(special: dict[str, str], *, lower: bool = True) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(dict.fromkeys(special.values())), show_progress=False
    )
    tokenizer.train_from_iterator(texts(200), trainer)
    return tokenizer


def byte_level(special: dict[str, str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(dict.fromkeys(special.values())), show_progress=False
    )
    tokenizer.train_from_iterator(texts(200), trainer)
    return tokenizer


def unigram(special: dict[str, str], *, lower: bool = False) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if lower else [])])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(dict.fromkeys(special.values())), unk_token=special["unk_token"],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts(200), trainer)
    return tokenizer


def _template(tokenizer: Any, special: dict[str, str], *, doubled: bool, types: bool) -> None:
    """Surround texts with special tokens: `cls A sep B sep`, or RoBERTa's `cls A sep sep B sep`."""
    from tokenizers.processors import TemplateProcessing

    cls, sep, second = special["cls_token"], special["sep_token"], int(types)
    middle = f"{sep}:0 {sep}:0" if doubled else f"{sep}:0"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls}:0 $A:0 {middle} $B:{second} {sep}:{second}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {cls, sep}],
    )


class Recipe:
    """How to make a family's checkpoint: its tokenizer, and what its configuration has besides the sizes."""

    def __init__(
        self, make: Callable[[dict[str, str]], Any], special: dict[str, str], name: str, **config: Any
    ) -> None:
        self.make, self.special, self.tokenizer_class, self.config = make, special, name, config
        self.doubled, self.types = config.pop("doubled", False), config.pop("types", True)


RECIPES = {
    "bert": Recipe(wordpiece, _BERT_TOKENS, "BertTokenizer"),
    "distilbert": Recipe(wordpiece, _BERT_TOKENS, "DistilBertTokenizer", dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "roberta": Recipe(
        byte_level, _ROBERTA_TOKENS, "RobertaTokenizer", max_position_embeddings=514, type_vocab_size=1, doubled=True, types=False
    ),
    "xlm-roberta": Recipe(
        unigram, _ROBERTA_TOKENS, "XLMRobertaTokenizer", max_position_embeddings=514, type_vocab_size=1, doubled=True, types=False
    ),
    "electra": Recipe(wordpiece, _BERT_TOKENS, "ElectraTokenizer", embedding_size=16),
    "albert": Recipe(
        partial(unigram, lower=True), {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
        "AlbertTokenizer", embedding_size=16, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    ),
    "mpnet": Recipe(wordpiece, _ROBERTA_TOKENS, "MPNetTokenizer", max_position_embeddings=514, doubled=True, types=False),
    # transformers 5 separates DeBERTa's pairs as RoBERTa's.
    "deberta": Recipe(
        byte_level, _BERT_TOKENS, "DebertaTokenizer", relative_attention=True, pos_att_type=["c2p", "p2c"],
        position_biased_input=False, type_vocab_size=0, doubled=True, types=False,
    ),
    "deberta-v2": Recipe(
        unigram, _BERT_TOKENS, "DebertaV2Tokenizer", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16,
        position_biased_input=False, type_vocab_size=0, share_att_key=True, norm_rel_ebd="layer_norm", conv_kernel_size=3,
    ),
    "modernbert": Recipe(
        byte_level, _BERT_TOKENS, "TokenizersBackend", num_hidden_layers=4, local_attention=8, max_position_embeddings=128,
        types=False,
    ),
    # In no family: ERNIE is BERT under another name; XLNet pads on the left and has segments of its own.
    "ernie": Recipe(wordpiece, _BERT_TOKENS, "BertTokenizer"),
    "xlnet": Recipe(
        unigram, _ROBERTA_TOKENS, "TokenizersBackend", d_model=32, n_layer=2, n_head=2, d_inner=64, num_hidden_layers=2
    ),
}  # fmt: skip
FAMILY_TYPES = tuple(name for name in RECIPES if name not in ("ernie", "xlnet"))


def write_encoder(folder: Path, model_type: str, **changes: Any) -> Path:
    """Write config.json, weights and tokenizer of a tiny encoder; `changes` are keys of its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    recipe = RECIPES[model_type]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = recipe.make(recipe.special)
    _template(tokenizer, recipe.special, doubled=recipe.doubled, types=recipe.types)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if recipe.types else [])]
    settings = recipe.special | {"tokenizer_class": recipe.tokenizer_class, "model_input_names": names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    sizes = {
        key: value
        for key, value in _SIZES.items()
        if model_type not in ("distilbert", "xlnet") or key in ("vocab_size", "id2label")
    }
    special = {
        f"{name}_token_id": tokenizer.token_to_id(recipe.special[f"{name}_token"])
        for name in ("pad", "bos", "eos", "cls", "sep")
        if f"{name}_token" in recipe.special
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(sizes | special | recipe.config | changes))
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():  # larger weights, so that a wrong mask or position changes the logits visibly
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4 if name.startswith(model.base_model_prefix) else 12)
    model.save_pretrained(folder)
    return folder
