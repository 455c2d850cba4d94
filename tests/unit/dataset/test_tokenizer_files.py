"""A model's tokenizer is the one that its files describe; what it doesn't know is counted."""

from __future__ import annotations

import json

import pytest
from tokenizers import BertWordPieceTokenizer

from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import load_tokenizer, unknown_token_id
from harness.errors import UserError

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", "Caf", "##é", "cafe", "中国", "中", "国"]


@pytest.fixture
def model(tmp_path):
    """Return a function that writes a BERT's files with some tokenizer_config.json."""

    def write(settings=None, *, parsed=False, model_type="bert"):
        (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        if settings is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        if parsed:
            BertWordPieceTokenizer(str(tmp_path / "vocab.txt")).save(str(tmp_path / "tokenizer.json"))
        return ModelFiles("m", "local", tmp_path, None)

    return write


@pytest.mark.parametrize("parsed", [False, True], ids=["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (None, ["paris", "cafe", "中", "国"]),
        ({"do_lower_case": True}, ["paris", "cafe", "中", "国"]),
        # A cased vocabulary without lower-case words gave [UNK] for each of these.
        ({"do_lower_case": False}, ["Paris", "Caf", "##é", "中", "国"]),
        ({"do_lower_case": False, "tokenize_chinese_chars": False}, ["Paris", "Caf", "##é", "中国"]),
        ({"do_lower_case": True, "strip_accents": False}, ["paris", "[UNK]", "中", "国"]),
    ],
)
def test_tokenizer_config_is_obeyed(settings, tokens, parsed, model):
    """`do_lower_case: false` beside a vocab.txt was ignored."""
    tokenizer, _ = load_tokenizer(model(settings, parsed=parsed))
    assert tokenizer.encode("Paris Café 中国").tokens == ["[CLS]", *tokens, "[SEP]"]
    assert unknown_token_id(tokenizer) == 1


def test_a_changed_tokenizer_has_another_hash(model):
    plain, lower, cased = (
        load_tokenizer(model(settings))[1] for settings in (None, {"do_lower_case": True}, {"do_lower_case": False})
    )
    assert plain == lower != cased


def test_a_generic_tokenizer_is_taken_as_it_is(model):
    """transformers ignores do_lower_case for these."""
    settings = {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer, _ = load_tokenizer(model(settings, parsed=True))
    assert tokenizer.encode("Paris").tokens[1] == "paris"


def test_a_vocabulary_alone_defines_no_tokenizer_of_another_family(model):
    with pytest.raises(UserError, match=r"a vocab.txt alone doesn't define the tokenizer of 'mpnet'.*save_pretrained"):
        load_tokenizer(model(model_type="mpnet"))
