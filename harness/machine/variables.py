"""Environment variables that move a figure: read them, judge them, and start processes without some of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from harness.machine.scrub import scrub
from harness.schema.finding import Finding, Verdict
from harness.schema.variables import REMOVED, Spoiled, find_spoilers, is_recorded

_MAX_LENGTH = 300  # characters of a value in a record


def read_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that can move a figure, by name, with scrubbed values.

    Args:
        environ: All variables; None: this process's.
    """
    variables = os.environ if environ is None else environ
    return {name: scrub(variables[name])[:_MAX_LENGTH] for name in sorted(variables) if is_recorded(name)}


def variable_findings(environment: Mapping[str, str] | None, *, has_gpu: bool) -> Iterator[Finding]:
    """Report each variable that spoils figures; one good finding if there is none.

    Args:
        environment: Variables that can move a figure.
        has_gpu: Whether cells can run on a GPU here.
    """
    of_device = [find_spoilers(environment, on_gpu=on_gpu) for on_gpu in ((False, True) if has_gpu else (False,))]
    spoiled = {one.name: one for found in of_device for one in found}
    if not spoiled:
        why = "some variables bind threads, slow products or change their precision"
        yield Finding(name="variables", value="none that spoils a figure", verdict="good", why=why)
    for one in spoiled.values():
        yield _finding(one)


def _finding(spoiled: Spoiled) -> Finding:
    verdict: Verdict = "bad" if spoiled.spoiler.changes_precision else "warn"
    taken = "; ranks are started without it" if spoiled.spoiler.is_removed else ""
    return Finding(
        name=f"variable {spoiled.name}",
        value=spoiled.value,
        verdict=verdict,
        why=f"{spoiled.spoiler.effect}{taken}",
        fix=f"unset {spoiled.name}",
    )


@contextlib.contextmanager
def without_thread_variables() -> Iterator[None]:
    """Take the variables that bind or limit threads out of the environment of processes that start meanwhile.

    An OpenMP runtime reads them once, when torch loads it, and binds the loading thread at once. Resetting a rank's affinity
    later is not enough, because the runtime binds each new thread to its own list of CPUs.
    """
    removed = {name: os.environ.pop(name) for name in REMOVED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def environment_without_thread_variables() -> dict[str, str]:
    """Return this process's environment without the variables that bind or limit threads."""
    return {name: value for name, value in os.environ.items() if name not in REMOVED}
