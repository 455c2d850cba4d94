"""Method: how each figure was measured, and what was not measured, according to the records (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.decision.cells import measured
from harness.decision.learning_curve import learning_curves
from harness.decision.memory_savings import split_record
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
from harness.report.formatting import clean, listed
from harness.report.labels import basis_word
from harness.schema.record import Record

# Relative to results/report/, the default of `--out`; the page also names the path, for reports elsewhere.
METHOD_URL = "../../docs/METHOD.md"

_CLOCKS = {
    "perf_counter": "the process's own monotonic clock (time.perf_counter), batch preparation included",
    "cuda_events": "CUDA events, synchronised once at the end of the measured window, batch preparation included",
}
_SOURCES = {
    "rss": "the resident set's high-water mark of each rank (VmHWM, reset when training starts), ranks added up",
    "control_group": "the high-water mark of the cell's own control group, from its start on, shared pages counted once",
    "pss": "the sum of all ranks' proportional set sizes (PSS), sampled every 5 s and when training ended, "
    "so that a peak between two samples is missed",
    "cuda_allocated": "PyTorch's peak of allocated GPU memory",
    "cuda_reserved": "PyTorch's peak of reserved GPU memory",
    "nvml_process": "the process's share of GPU memory by NVML",
}


@dataclass(frozen=True)
class MethodEntry:
    """One entry of the method.

    Attributes:
        anchor: Anchor of the definition in docs/METHOD.md; None without a definition.
    """

    name: str
    text: str
    anchor: str | None = None

    @property
    def url(self) -> str | None:
        """The link to the definition; None without an anchor."""
        return f"{METHOD_URL}#{self.anchor}" if self.anchor else None


def method(cells: Sequence[Priced]) -> list[MethodEntry]:
    """Describe how each kind of figure was measured in these records."""
    return [
        *_training(cells),
        *_costs(cells),
        *_machines_and_data(cells),
        *_scaling(cells),
        *_compute_and_memory(cells),
    ]


def _training(cells: Sequence[Priced]) -> list[MethodEntry]:
    records = [record for cell in measured(cells) for record in cell.summary.records if record.training is not None]
    clocks = sorted({r.training.steps.clock for r in records if r.training is not None})
    sources = sorted({source for cell in cells if (source := cell.summary.peak_memory_source)})
    warmups = sorted({n for cell in cells if (n := cell.summary.num_warmup_steps) is not None})
    intervals = sorted({c.summary.samples_per_s.basis for c in cells if c.summary.samples_per_s is not None})
    accuracy_intervals = sorted({c.summary.accuracy.basis for c in cells if c.summary.accuracy is not None})
    num_excluded = " to ".join(str(n) for n in dict.fromkeys((warmups[0], warmups[-1]))) if warmups else "no"
    clock = listed([_CLOCKS[name] for name in clocks]) or "no clock: nothing ran"
    source = listed([_SOURCES.get(name, clean(name)) for name in sources]) or "not measured"
    return [
        MethodEntry(
            "Training speed",
            f"Samples over the slowest rank's seconds, by {clock}. "
            f"Left out as warm-up, by cell: {num_excluded} steps at the beginning of each run, found from the steps themselves "
            "(MSER, White 1997). "
            f"Interval: {clean(listed(intervals)) or 'none'}.",
            "throughput",
        ),
        MethodEntry(
            "Peak memory",
            f"Highest of the runs: {source}. From the start of training to its end, where nothing else is said. "
            + _caps(cells),
            "peak-memory",
        ),
        MethodEntry(
            "Accuracy",
            "On the test set, looked at once, at the end of the run; the curves are of the validation set. "
            f"Interval: {clean(listed(accuracy_intervals)) or 'none'}. Configurations are compared on the same examples, see the recommendation. "
            "A sweep over batch size at a fixed number of epochs compares numbers of updates too, which are shown with the accuracy.",
            "accuracy",
        ),
        MethodEntry(
            "Time to target",
            "Set-up, training and validations of all runs, over the number of runs that reached the target; a run counts "
            "until the first validation that reached it, one that missed it to its end.",
            "time-to-target",
        ),
    ]


def _costs(cells: Sequence[Priced]) -> list[MethodEntry]:
    bases: list[str] = sorted({basis_word(cell.price) for cell in cells if cell.price is not None})
    return [
        MethodEntry(
            "Dollars",
            "Measured seconds at the hourly price: a run is set-up, training and evaluation; "
            "1,000 samples are training alone. Storage and network are not in them.",
            "dollars",
        ),
        MethodEntry(
            "Billed",
            "What the provider charges for a run: start-up, set-up and the run, at least its minimum, in its whole units; "
            "on spot machines with the expected loss by interruptions. " + _energy_method(cells),
            "what-a-run-is-billed",
        ),
        MethodEntry(
            "Worth",
            "Benefit a month and its present value under the value model; intervals are those of test accuracy, costs are "
            "taken at their value.",
            "value-model",
        ),
        MethodEntry(
            "Price",
            f"How the price is known in this report: {listed(bases) or 'it is not'}. Given: typed in. "
            "Stated: the user named the instance. Detected: the firmware did. Example: nobody named it; the price "
            "is that of the instance in the price table that comes nearest to the machine.",
            "price-basis",
        ),
    ]


def _energy_method(cells: Sequence[Priced]) -> str:
    methods = sorted({cell.energy.method for cell in measured(cells) if cell.energy is not None})
    return f"Energy: {clean(listed(methods))}." if methods else ""


def _machines_and_data(cells: Sequence[Priced]) -> list[MethodEntry]:
    """Describe comparisons of machines and of training sizes, if the report has them."""
    lines = []
    if len({cell.summary.machine_id for cell in cells}) > 1:
        lines.append(
            MethodEntry(
                "Machines side by side",
                "The same configuration, whatever the kind of device. Hosts of one type are repeats, and an interval reaches "
                "over all of them. Ranked by one test of all machines together, corrected for their number.",
                "machines-compared",
            )
        )
    if learning_curves(cells):
        lines.append(
            MethodEntry(
                "Learning curve",
                "Cells on one machine and test set that differ in the number of training examples alone. A family "
                "of power laws is fitted to the error, weighted by its covariance over test examples and seeds; the gain of twice "
                "the examples has a profile likelihood interval, as wide as the fits without one of the sizes differ. No forecast "
                "where the fit is poor, nor beyond twice the most that were measured.",
                "learning-curve",
            )
        )
    return lines


def _scaling(cells: Sequence[Priced]) -> list[MethodEntry]:
    """Describe scaling over devices, if the report has a series."""
    if not scaling_series(cells):
        return []
    return [
        MethodEntry(
            "Scaling",
            "Cells on one machine that differ in number of devices and batch alone. Speed-up is throughput over that "
            "of the fewest devices, efficiency speed-up over the ratio of devices; intervals from those of the two "
            "throughputs, taken as independent. Costs are ranked by one test of all devices of a series, corrected for "
            "their number.",
            "scaling",
        ),
        MethodEntry(
            "Exposed communication",
            "Share of a forward and backward pass that DDP adds to one without all-reduce, medians of both in turns.",
            "exposed-communication",
        ),
    ]


def _compute_and_memory(cells: Sequence[Priced]) -> list[MethodEntry]:
    """Describe MFU and the parts of peak memory, if any cell has them."""
    lines = []
    if any(cell.summary.compute is not None for cell in cells):
        lines.append(
            MethodEntry(
                "Share of the peak",
                "FLOPs of the model's matrix products, padding included and recomputing left out, scaled by what torch "
                "counted in one real step, over seconds and peak: on a CPU the fastest product found between steps of the "
                "same cell, on a GPU its datasheet's dense peak.",
                "mfu",
            )
        )
    if any(split_record(cell) is not None for cell in cells):
        lines.append(
            MethodEntry(
                "Parts of memory",
                "Process, weights and optimiser state, and what one step that is in no other figure held at its fullest "
                "moment, counted tensor by tensor; the rest of rank 0's peak is not explained.",
                "where-memory-went",
            )
        )
    return lines


def _caps(cells: Sequence[Priced]) -> str:
    """Describe the memory caps of these cells; empty without caps."""
    caps = {record.cap for record in _records(cells) if record.cap is not None}
    exact = any(cap.exact for cap in caps)
    methods = {cap.method for cap in caps if not cap.exact}
    sentences = []
    if exact:
        sentences.append(
            "Caps: a control group of the cell's own, without swap, which a fresh process enters before it begins."
        )
    if "rlimit_data" in methods:
        sentences.append(
            "Caps by RLIMIT_DATA are approximate: they count what a process maps to write to, touched or not, and no file."
        )
    if "cuda_fraction" in methods:
        sentences.append(
            "Caps on a GPU are approximate: torch's allocator holds to them, the CUDA context comes on top."
        )
    return " ".join(sentences)


def not_measured(cells: Sequence[Priced]) -> list[str]:
    """List figures that a reader might expect but that these records do not hold."""
    good = measured(cells)
    missing = []
    if not any(cell.summary.records[-1].machine.gpus for cell in good):
        missing.append("No GPU ran any of these cells: nothing here says how a GPU would do.")
    if good and all(cell.summary.accuracy is None for cell in good):
        missing.append("No accuracy: the weights were random, or no run reached its test.")
    if good and all(len(cell.summary.records) == 1 for cell in good):
        missing.append("Each configuration ran once: the spread between seeds is not known.")
    if good and all(cell.summary.target_accuracy is None for cell in good):
        missing.append("No target accuracy was set, so there is no time or cost to reach one.")
    if good and all(cell.summary.mfu is None for cell in good):
        missing.append(
            "Share of the device's peak (MFU): no peak was looked for beside these cells, and none is known."
        )
    if not any(cell.energy is not None for cell in good):
        missing.append("Energy: no counter could be read, and no watts are stated.")
    missing.append("The cost of storage and network; that of people only as the value model states it.")
    loads = [record.load for record in _records(good) if record.load is not None]
    if any(load.system_busy_s is None for load in loads):
        missing.append("Other load on the machine, where the system gives no answer.")
    return missing


def _records(cells: Sequence[Priced]) -> list[Record]:
    return [record for cell in cells for record in cell.summary.records]
