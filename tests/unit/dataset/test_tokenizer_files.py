"""A model's tokenizer is the one that its files describe; what it doesn't know is counted."""

from __future__ import annotations

import json

import pytest
from tokenizers import BertWordPieceTokenizer

from harness.dataset.corpus import load_corpus
from harness.dataset.rows import read_rows
from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import load_tokenizer, unknown_token_id
from harness.dataset.tokens import largest_token_id, tokenize
from harness.errors import UserError
from harness.schema.settings import DataSettings

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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("tokenizer.json", content) for content in ("{", '{"model": {"type": "?"}}', "[" * 99_999, "\0")),
        *(("tokenizer_config.json", content) for content in ("{", "[" * 99_999, "\0")),
    ],
)
def test_a_damaged_file_is_one_line(name, content, model):
    """A damaged tokenizer.json was a traceback: tokenizers raises bare exceptions."""
    files = model(parsed=True)
    (files.folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"^model 'm': {name} (is damaged|can't be read)") as refused:
        load_tokenizer(files)
    assert "\n" not in str(refused.value)


def test_unknown_tokens_are_counted_in_the_record(model, tmp_path):
    """A cased model's words were all [UNK], and nothing said so."""
    rows = [f"{'Paris' if n % 2 else 'Lisbon'} paris {n}x,{'ab'[n % 2]}" for n in range(12)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    settings = DataSettings(source=str(tmp_path / "rows.csv"), num_train=4, num_val=4, num_test=4)
    corpus = load_corpus(settings, read_rows(settings))
    tokens = tokenize(corpus, model({"do_lower_case": False}), 16, tmp_path / "tokens", store_texts=True)
    words = " ".join(text for split in ("train", "val", "test") for text in corpus.texts[split]).split()
    assert tokens.facts.unknown_fraction == pytest.approx(sum(word not in VOCAB for word in words) / len(words))
    assert tokens.facts.unknown_fraction == pytest.approx(0.5)  # Lisbon in half of the texts, the number in all
    assert largest_token_id(tokens.folder) == VOCAB.index("paris")
