"""The parts of a record that describe a run's inputs: model and data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.schema.ranges import Index, PositiveTally, Share, Tally
from harness.schema.settings import Many, Settings

SimilarityKind = Literal["Unicode normalization", "blanks", "full-width form", "case", "number form"]


class HubSource(Settings):
    """A repository of the Hugging Face hub, at the commit that was used.

    Attributes:
        repo: The repository, `OWNER/NAME`.
        revision: The branch, tag or commit that the study asked for.
        config: The dataset's config; None for models.
    """

    repo: str
    revision: str
    commit: str
    config: str | None = None

    @property
    def short_commit(self) -> str:
        """Return the commit's first digits, as the hub shows them."""
        return self.commit[:7]


class LoadedWeights(Settings):
    """How a checkpoint's tensors became the model's; each tensor of either is accounted for.

    Attributes:
        num_tensors: Tensors in the file.
        stripped_prefixes: Prefixes of wrappers, such as `module.`, that were removed from the tensors' names.
        new: The model's tensors that were made anew: of the head, or BERT's pooler.
        num_unused: Tensors of the file that the model has no place for, such as of another head.
        unused: The names of the first of them.
        head: `kept`: its labels are the data's, in this order; `reordered`: in another order, so its rows were moved; `new`:
            its last layer was made anew; `dropped`: the features baseline has none.
        head_reason: Why the head is new, or not in its order; None if it was kept.
    """

    num_tensors: Tally
    stripped_prefixes: Many[str] = ()
    new: Many[str] = ()
    num_unused: Tally = 0
    unused: Many[str] = ()
    head: Literal["kept", "reordered", "new", "dropped"]
    head_reason: str | None = None


class ModelFacts(Settings):
    """The model that was fine-tuned, or the encoder whose features a baseline used.

    Attributes:
        origin: Where the model came from; `random` for random weights.
        sha256: Hash of the weights file; of shards, the hash of their hashes in order; None for random weights.
        architecture: Class name in transformers.
        max_positions: Longest input in tokens that the position embeddings allow; None if the configuration doesn't say.
        attention_dropout: Dropout probability of attention weights; None when the configuration has none.
        hidden_dropout: Dropout probability of hidden states; None when the configuration has none.
        checkpoint_dtype: Dtype of the tensors in the file, before they were loaded as fp32; None for random weights.
        attention: The attention implementation in transformers that ran: `sdpa` or `eager`.
        hub: Where configuration, tokenizer and weights came from; None if not from the hub.
        family: The tested family (schema/encoder_families.py) that the architecture belongs to, or `not tested`; None in older
            records.
        weights: How the checkpoint was loaded; None for random weights and in older records.
    """

    name: str
    origin: Literal["packaged", "local", "hub", "random"]
    sha256: str | None
    architecture: str
    num_parameters: PositiveTally
    num_trainable_parameters: Tally
    hidden_size: PositiveTally
    num_layers: PositiveTally
    num_heads: PositiveTally
    intermediate_size: PositiveTally
    vocab_size: PositiveTally
    max_positions: Tally | None
    attention_dropout: Share | None
    hidden_dropout: Share | None
    checkpoint_dtype: str | None
    attention: str | None
    hub: HubSource | None = None
    family: str | None = None
    weights: LoadedWeights | None = None


class Split(Settings):
    """One split of the data.

    Attributes:
        sha256: Hash of the split's labels and texts in order.
        majority_fraction: Share of the most common label, from 0 to 1.
    """

    num_rows: Tally
    sha256: str
    majority_fraction: Share

    @property
    def has_one_label(self) -> bool:
        """Return whether all rows have the same label."""
        return self.majority_fraction == 1


class SimilarLabels(Settings):
    """Labels that look alike, and are classes of their own unless they were merged.

    Attributes:
        kinds: How they differ.
        rows: Rows of each label, most first; merged, all count for the first.
        merged: Whether they were merged into the first (`clean_labels = true`).
    """

    kinds: Many[SimilarityKind]
    rows: dict[str, Tally]
    merged: bool = False


class DataFacts(Settings):
    """The data of a run; a count is None in records that are older than the count.

    Attributes:
        source: The study's `data.source`.
        sha256: Hash of the source file; of several files, the hash of their hashes in order; None for hub datasets.
        labels: Names of the classes; labels elsewhere in the record are indices into this tuple.
        split_by: The column whose groups are kept within one split, or whose times order the splits; None for a random
            split.
        num_source_rows: Usable rows of the whole source; costs for the whole dataset are extrapolated to this number.
        num_duplicates_dropped: Rows dropped because another row has the same text.
        num_train_available: Rows that the training split could have used.
        tokenizer_sha256: Hash of the tokenizer file; None when nothing was tokenised.
        truncated_fraction: Share of rows longer than `seq_len`, from 0 to 1; None when nothing was tokenised.
        unknown_fraction: Share of the texts' tokens that are not in the vocabulary ([UNK]), from 0 to 1, special tokens excluded;
            None when nothing was tokenised, and in older records.
        bad_rows: Number of skipped rows by kind of problem (`on_bad_row = "skip"`).
        num_conflicting_duplicates: Dropped duplicates whose label differed from the kept row's.
        num_leaks_dropped: Rows dropped because their text, or a row of their group, is in the separate validation or
            test file.
        num_near_duplicates: Validation and test rows that are near-duplicates of a training row.
        num_near_checked: Rows of all splits that were checked for near-duplicates; of large data, a random sample.
        rare_labels: Labels with fewer than 10 training rows.
        hub: The sources that are datasets of the hub, by the key that names them: `source`, `val_source` or
            `test_source`.
        tokens_were_kept: Whether tokens came from the cache; if so, `Phases.tokenise_s` was measured in the run that
            wrote them there.
        similar_labels: Groups of labels that look alike.
        null_like_labels: Rows of each label that may stand for a missing one, such as "nan"; with `clean_labels` those
            that surely do are counted under `bad_rows` instead.
    """

    source: str
    sha256: str | None
    labels: Many[str]
    split_by: str | None
    num_source_rows: Tally
    num_duplicates_dropped: Tally
    num_train_available: Tally
    train: Split
    val: Split
    test: Split
    tokenizer_sha256: str | None = None
    truncated_fraction: Share | None = None
    unknown_fraction: Share | None = None
    bad_rows: dict[str, Tally] = Field(default_factory=dict)
    num_conflicting_duplicates: Tally | None = None
    num_leaks_dropped: Tally | None = None
    num_near_duplicates: Tally | None = None
    num_near_checked: Tally | None = None
    rare_labels: Many[str] = ()
    tokens_were_kept: bool = False
    similar_labels: Many[SimilarLabels] = ()
    null_like_labels: dict[str, Tally] = Field(default_factory=dict)
    hub: dict[str, HubSource] = Field(default_factory=dict)


class Example(Settings):
    """One training example as the model gets it; text, tokens and ids are None with `store_texts = false`.

    Attributes:
        pair: The second segment's text; None for single texts.
        token_type_ids: Segment of each token, 0 or 1; None for single texts.
    """

    label: str | None
    text: str | None
    tokens: Many[str] | None
    input_ids: Many[Index] | None
    attention_mask: Many[Index]
    pair: str | None = None
    token_type_ids: Many[Index] | None = None
