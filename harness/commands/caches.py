"""The command about what is kept of large data."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from harness.commands import console
from harness.commands.options import AsJson

app = typer.Typer()
_MIB = 2**20


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
    from harness.cache import Cache

    kept = Cache()
    entries = kept.entries() if action == "list" else kept.clear()
    num_bytes = sum(entry.num_bytes for entry in entries)
    if as_json:
        rows = [vars(entry) | {"folder": str(entry.folder)} for entry in entries]
        console.print_json({"root": str(kept.root), "num_bytes": num_bytes, "entries": rows})
        return
    if action == "list" and entries:
        table = Table("what", "MiB", "made", "folder", box=None, pad_edge=False)
        for entry in entries:
            words = entry.words or "half-made: in use by a run, or left by one that was killed"
            made = f"{entry.made_at:%Y-%m-%d %H:%M}"
            table.add_row(escape(words), f"{entry.num_bytes / _MIB:,.1f}", made, escape(entry.folder.name[:20]))
        console.out.print(table, highlight=False)
    told = "deleted from" if action == "clear" else "in"
    console.out.print(
        f"{len(entries)} entries, {num_bytes / _MIB:,.1f} MiB, {told} {escape(str(kept.root))}",
        highlight=False,
        soft_wrap=True,
    )
