"""Labelled texts, from files or a hub dataset to batches: read, checked, deduplicated, split, tokenised and planned.

Input: the study's `data` settings and a model's tokenizer. Output: `Rows`, `Corpus`, and `TokenArrays` on disk, which
the worker opens. Nothing here imports torch.
"""
