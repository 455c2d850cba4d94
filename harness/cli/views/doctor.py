"""Terminal view of `harness doctor`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from harness.cli.console import layout_width, print_table, print_text
from harness.cli.layout import columns
from harness.machine.calibration import Calibration, DeviceCalibration
from harness.workflows.doctor import Diagnosis

# In terminals at least this wide, the table has the reasons; in narrower ones they follow the table, with the fixes.
_WIDE_COLUMNS = 120
_COLOURS = {"good": "green", "warn": "yellow", "bad": "red", "not known": "dim"}
_CLOSING = {
    "good": "Nothing was found that would spoil a benchmark.",
    "warn": "A benchmark can run; read what is marked `warn` when you compare its figures.",
    "bad": "Fix what is marked `bad` first: it would spoil a benchmark.",
}


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print a row per finding, with the first line of its value; then the rest of it and the fixes; and the calibration."""
    is_wide = (layout_width(console) or _WIDE_COLUMNS) >= _WIDE_COLUMNS
    names = ("", "what", "seen", "why it matters")[: 3 + is_wide]
    rows = [
        (
            f"[{_COLOURS[finding.verdict]}]{finding.verdict}[/]",
            *map(escape, (finding.name, finding.value.partition("\n")[0], finding.why)[: 2 + is_wide]),
        )
        for finding in diagnosis.findings
    ]
    print_table(console, columns(names), rows)
    problems = [finding for finding in diagnosis.findings if finding.verdict in ("warn", "bad")]
    if problems:
        print_text(console, "\n[bold]What to do[/]")
    for finding in problems:
        print_text(console, f"  {escape(finding.name)}: {escape(finding.why)}", hang=2)
        # Such as the processes, one a line.
        for line in finding.value.splitlines()[1:]:
            print_text(console, f"    {escape(line)}", hang=4)
        print_text(console, f"      {escape(finding.fix or 'none')}")
    if isinstance(diagnosis.calibration, Calibration):
        _show_calibration(console, diagnosis.calibration)
    elif diagnosis.calibration is None:
        print_text(console, "\nNo calibration was asked for (--quick).")
    print_text(console, f"\n[{_COLOURS[diagnosis.verdict]}]{diagnosis.verdict}[/]: {_CLOSING[diagnosis.verdict]}")


def _show_calibration(console: Console, calibration: Calibration) -> None:
    print_text(
        console, f"\n[bold]What it reaches[/] (torch {escape(calibration.torch)}, {calibration.duration_s:.0f} s)"
    )
    for device in calibration.devices:
        threads = "" if device.num_threads is None else f", {device.num_threads} threads"
        print_text(console, f"  {device.device.upper()}{threads}: {'; '.join(_device_figures(device))}", hang=2)


def _device_figures(device: DeviceCalibration) -> list[str]:
    products = [f"{row.precision} {row.gflop_per_s:,.0f} GFLOP/s ({row.size} square)" for row in device.products]
    rate = device.copy_gb_per_s
    copy = "copy not measured (too little memory)" if rate is None else f"copy {rate:.1f} GB/s"
    return [*products, copy, f"a step 95 % within {device.step_s_p95_over_median:.2f} times its median"]
