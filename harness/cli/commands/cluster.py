"""The commands `cluster ...`, for studies on many machines at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import MACHINE, CommandGroup, command
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath

app = typer.Typer()
group = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Start a cluster of machines, and see what runs on it. `harness run --cluster` runs a study there.",
)
app.add_typer(group, name="cluster", rich_help_panel=MACHINE)


@command(
    group,
    MACHINE,
    epilog="Example: harness cluster template --on aws --machines g5.xlarge,g6.xlarge --spot -o cluster.yaml",
)
def template(
    *,
    on: Annotated[
        Literal["aws", "gcp", "azure", "skypilot"],
        typer.Option("--on", help="Ray's launcher in this cloud, or SkyPilot."),
    ],
    machines: Annotated[
        str, typer.Option("--machines", metavar="NAME,...", help="Instance types, as `harness prices` lists them.")
    ],
    spot: Annotated[bool, typer.Option("--spot", help="Spot machines; the head stays on demand.")] = False,
    region: Annotated[
        str | None, typer.Option("--region", metavar="NAME", help="Default: the cheapest that has them all.")
    ] = None,
    max_hours: Annotated[
        int,
        typer.Option(
            "--max-hours", metavar="N", min=1, max=720, help="Nodes end then at the latest (Azure: see the file)."
        ),
    ] = 12,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a file that starts a cluster, with the commands around it. It holds nothing of your account."""
    from harness.cluster.templates import TemplateRequest, render_template
    from harness.files import atomic_write_text
    from harness.pricing.price_table import load_prices

    names = tuple(name.strip() for name in machines.split(",") if name.strip())
    written = render_template(TemplateRequest(on, names, spot, region, max_hours), load_prices())
    if out is not None:
        atomic_write_text(out, written.text)
        console.print_note(f"{out}: its first lines say what it costs, and the commands that start and end it")
    if as_json:
        nodes = [written.head, *written.machines]
        fields = {"region": written.region, "usd_per_hour": written.usd_per_hour, "max_usd": written.max_usd}
        fields |= {"nodes": {node.name: node.usd_per_hour for node in nodes}}
        console.print_json(fields | ({"text": written.text} if out is None else {"path": str(out)}))
    elif out is None:
        typer.echo(written.text, nl=False)


@command(group, MACHINE, epilog="Example: harness cluster status")
def status(*, results: ResultsPath = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Show what a run on a cluster does now: a line a node.

    It reads what `harness run --cluster` writes every few seconds among its results, also with `--detach`.
    """
    from dataclasses import asdict

    from harness.cli.views.cluster import print_status
    from harness.cluster.run_status import read_status

    running = read_status(results)
    if as_json:
        console.print_json(None if running is None else asdict(running))
    elif running is None:
        console.print_text(console.out, f"No run on a cluster writes into {escape(str(results))} now.")
    else:
        print_status(console.out, running)
