"""A diagnosis as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.machine.calibration import Calibration, DeviceCalibration
from harness.workflows.doctor import Diagnosis

# Columns that the reasons need beside the rest; narrower, they stand below, with what is to be done.
_WIDE = 120
_COLOURS = {"good": "green", "warn": "yellow", "bad": "red", "not known": "dim"}
_CLOSING = {
    "good": "Nothing was found that would spoil a benchmark.",
    "warn": "A benchmark can run; read what is marked `warn` when you compare its figures.",
    "bad": "Mend what is marked `bad` first: it would spoil a benchmark.",
}


def show_diagnosis(console: Console, found: Diagnosis) -> None:
    """A row for each thing that was looked at, why it matters and what to do, then what the machine reaches."""
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("seen", "why it matters")[: 1 + wide]:
        table.add_column(name, overflow="fold")
    for finding in found.findings:
        colour = _COLOURS[finding.verdict]
        words = (finding.name, finding.value, finding.why)[: 2 + wide]
        table.add_row(f"[{colour}]{finding.verdict}[/]", *map(escape, words))
    console.print(table, highlight=False)
    to_mend = [finding for finding in found.findings if finding.verdict in ("warn", "bad")]
    if to_mend:
        console.print("\n[bold]What to do[/]")
    for finding in to_mend:
        console.print(f"  {escape(finding.name)}: {escape(finding.why)}", soft_wrap=True, highlight=False)
        # Commands are to be copied: a line each, however long.
        console.print(f"      {escape(finding.fix or 'none')}", soft_wrap=True, highlight=False)
    if isinstance(found.calibration, Calibration):
        _show_calibration(console, found.calibration)
    elif found.calibration is None:
        console.print("\nNo calibration was asked for (--quick).", highlight=False)
    console.print(f"\n[{_COLOURS[found.verdict]}]{found.verdict}[/]: {_CLOSING[found.verdict]}", highlight=False)


def _show_calibration(console: Console, found: Calibration) -> None:
    console.print(
        f"\n[bold]What it reaches[/] (torch {escape(found.torch)}, {found.duration_s:.0f} s)", highlight=False
    )
    for device in found.devices:
        threads = "" if device.num_threads is None else f", {device.num_threads} threads"
        console.print(
            f"  {device.device.upper()}{threads}: {'; '.join(_words(device))}", soft_wrap=True, highlight=False
        )


def _words(device: DeviceCalibration) -> list[str]:
    products = [f"{row.precision} {row.gflop_per_s:,.0f} GFLOP/s ({row.size} square)" for row in device.products]
    copied = device.copy_gb_per_s
    copy = "copy not measured (too little memory)" if copied is None else f"copy {copied:.1f} GB/s"
    return [*products, copy, f"a step 95 % within {device.step_s_p95_over_median:.2f} times its median"]
