"""Terminal view of `harness profile`: where a step's time went, and the most expensive operators."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from harness.cli.console import print_table, print_text
from harness.cli.layout import columns
from harness.schema.step_profile import PHASES, StepProfile
from harness.workflows.profile_cell import ProfiledCell

_MILLISECONDS = 1e3


def show_profile(console: Console, result: ProfiledCell) -> None:
    """Print the phases of a step and its operators."""
    profile, num_steps = result.profile, len(result.profile.step_s)
    print_text(console, f"[bold]{escape(result.cell)}[/]: {num_steps} steps under the profiler")
    phases = [
        (escape(name), f"{_MILLISECONDS * seconds / num_steps:,.2f}", f"{seconds / profile.total_s:.1%}")
        for name, seconds in phase_rows(profile)
    ]
    print_table(console, columns(["of a step"], ["ms", "share"]), phases)
    print_text(console)
    operators = [
        (
            escape(operator.name),
            f"{operator.num_calls / num_steps:g}",
            f"{_MILLISECONDS * operator.self_s / num_steps:,.2f}",
            f"{operator.self_s / profile.total_s:.1%}",
        )
        for operator in profile.operators
    ]
    print_table(console, columns(["operator, its own time"], ["calls a step", "ms a step", "share"]), operators)
    profiled_s = profile.total_s / num_steps
    print_text(
        console,
        f"\nA step took {_MILLISECONDS * profiled_s:,.1f} ms (mean), the same steps {_MILLISECONDS * result.plain_step_s:,.1f} ms "
        f"(median) without the profiler. No figure or record holds them.\nTrace, for ui.perfetto.dev: {escape(str(result.trace))}",
    )


def phase_rows(profile: StepProfile) -> list[tuple[str, float]]:
    """List the seconds of all profiled steps: by phase, in total, and for parts within the phases."""
    rows = [(name, profile.phases_s[name]) for name in PHASES]
    rows += [("between them", profile.total_s - sum(profile.phases_s.values())), ("whole step", profile.total_s)]
    if profile.all_reduce_s is not None:
        rows.append(("within: all-reduce on its way", profile.all_reduce_s))
    idle = "no kernel" if profile.device == "cuda" else "no operator"
    return [*rows, (f"within: idle ({idle} runs)", profile.idle_s)]
