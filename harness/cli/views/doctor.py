"""Terminal view of `harness doctor`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.machine.calibration import Calibration, DeviceCalibration
from harness.workflows.doctor import Diagnosis

# In terminals at least this wide, the table has the reasons; in narrower ones they follow the table, with the fixes.
_WIDE_COLUMNS = 120
_COLOURS = {"good": "green", "warn": "yellow", "bad": "red", "not known": "dim"}
_CLOSING = {
    "good": "Nothing was found that would spoil a benchmark.",
    "warn": "A benchmark can run; read what is marked `warn` when you compare its figures.",
    "bad": "Mend what is marked `bad` first: it would spoil a benchmark.",
}


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print a row per finding, the fixes, and the calibration."""
    wide = console.width >= _WIDE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("seen", "why it matters")[: 1 + wide]:
        table.add_column(name, overflow="fold")
    for finding in diagnosis.findings:
        colour = _COLOURS[finding.verdict]
        columns = (finding.name, finding.value, finding.why)[: 2 + wide]
        table.add_row(f"[{colour}]{finding.verdict}[/]", *map(escape, columns))
    console.print(table, highlight=False)
    problems = [finding for finding in diagnosis.findings if finding.verdict in ("warn", "bad")]
    if problems:
        console.print("\n[bold]What to do[/]")
    for finding in problems:
        console.print(f"  {escape(finding.name)}: {escape(finding.why)}", soft_wrap=True, highlight=False)
        # One line per command, however long, so that it can be copied.
        console.print(f"      {escape(finding.fix or 'none')}", soft_wrap=True, highlight=False)
    if isinstance(diagnosis.calibration, Calibration):
        _show_calibration(console, diagnosis.calibration)
    elif diagnosis.calibration is None:
        console.print("\nNo calibration was asked for (--quick).", highlight=False)
    console.print(
        f"\n[{_COLOURS[diagnosis.verdict]}]{diagnosis.verdict}[/]: {_CLOSING[diagnosis.verdict]}", highlight=False
    )


def _show_calibration(console: Console, calibration: Calibration) -> None:
    console.print(
        f"\n[bold]What it reaches[/] (torch {escape(calibration.torch)}, {calibration.duration_s:.0f} s)",
        highlight=False,
    )
    for device in calibration.devices:
        threads = "" if device.num_threads is None else f", {device.num_threads} threads"
        console.print(
            f"  {device.device.upper()}{threads}: {'; '.join(_device_figures(device))}", soft_wrap=True, highlight=False
        )


def _device_figures(device: DeviceCalibration) -> list[str]:
    products = [f"{row.precision} {row.gflop_per_s:,.0f} GFLOP/s ({row.size} square)" for row in device.products]
    rate = device.copy_gb_per_s
    copy = "copy not measured (too little memory)" if rate is None else f"copy {rate:.1f} GB/s"
    return [*products, copy, f"a step 95 % within {device.step_s_p95_over_median:.2f} times its median"]
