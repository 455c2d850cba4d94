"""Counters of energy: RAPL's files as the kernel documents them, NVML's answers as NVIDIA does; none was recorded.

Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import sys

import pytest

from harness.machine.energy_meter import EnergyMeter, RaplZone, find_zones
from harness.schema.host_record import Energy
from tests.make_nvml import CUT, TWO, make_nvml

RANGE_UJ = 262_143_328_850


def make_zone(folder, name, energy_uj, range_uj=RANGE_UJ):
    folder.mkdir(parents=True)
    for file, value in {"name": name, "energy_uj": energy_uj, "max_energy_range_uj": range_uj}.items():
        (folder / file).write_text(f"{value}\n")
    return folder


def set_uj(folder, energy_uj):
    (folder / "energy_uj").write_text(f"{energy_uj}\n")


@pytest.fixture
def powercap(tmp_path):
    """Two packages with their cores and one with its memory, and a laptop's psys around them."""
    root = tmp_path / "intel-rapl"
    for index in (0, 1):
        package = make_zone(root / f"intel-rapl:{index}", f"package-{index}", 1_000_000)
        make_zone(package / f"intel-rapl:{index}:0", "core", 5_000)
        (package / "constraint_0_name").write_text("long_term\n")
    make_zone(root / "intel-rapl:0" / "intel-rapl:0:1", "dram", 2_000_000)
    make_zone(root / "intel-rapl:2", "psys", 9_000_000)
    (root / "enabled").write_text("1\n")
    return tmp_path


@pytest.fixture(autouse=True)
def no_zeus(request, monkeypatch):
    """Whether the extra is installed or not, the tests are of NVML's own counter; but for the one of zeus's."""
    if "zeus" not in request.node.name:
        monkeypatch.setitem(sys.modules, "zeus", None)


def test_packages_and_their_memory_are_counted_once(powercap):
    assert [zone.name for zone in find_zones(powercap)] == ["package-0", "dram", "package-1"]


def test_joules_between_begin_and_end(powercap):
    meter = EnergyMeter(0, powercap)
    meter.begin(0.5)
    root = powercap / "intel-rapl"
    set_uj(root / "intel-rapl:0", 31_000_000)
    set_uj(root / "intel-rapl:1", 21_500_000)
    set_uj(root / "intel-rapl:0" / "intel-rapl:0:1", 6_000_000)
    set_uj(root / "intel-rapl:2", 90_000_000)
    assert meter.energy() is None
    meter.end(10.5)
    assert meter.energy() == Energy(source="RAPL", seconds=10.0, cpu_joules=(30.0, 20.5), dram_joules=(4.0,))


def test_the_first_end_counts(powercap):
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    set_uj(powercap / "intel-rapl" / "intel-rapl:0", 999_000_000)
    meter.poll(30.0)
    meter.end(2.0)
    assert (meter.energy().seconds, meter.energy().cpu_joules) == (1.0, (0.0, 0.0))


def test_a_counter_that_begins_anew_is_followed(tmp_path):
    folder = make_zone(tmp_path / "intel-rapl" / "intel-rapl:0", "package-0", 90_000_000, range_uj=100_000_000)
    meter = EnergyMeter(0, tmp_path)
    meter.begin(0.0)
    for second, energy_uj in ((20, 40_000_000), (21, 41_000_000), (40, 95_000_000), (60, 45_000_000)):
        set_uj(folder, energy_uj)
        meter.poll(float(second))
    set_uj(folder, 46_000_000)
    meter.end(61.0)
    # 50 to the range's end and past it, 55, 50 past it again, 1.
    assert meter.energy().cpu_joules == (pytest.approx(156.0),)


def test_a_zone_counts_from_its_opening(tmp_path):
    folder = make_zone(tmp_path / "zone", "package-0", 7_000_000)
    zone = RaplZone(folder)
    set_uj(folder, 8_500_000)
    assert (zone.joules(), zone.joules()) == (1.5, 1.5)


def test_a_machine_without_counters_has_no_energy(tmp_path):
    meter = EnergyMeter(0, tmp_path / "nothing")
    meter.begin(0.0)
    meter.poll(30.0)
    meter.end(60.0)
    assert meter.energy() is None


def test_what_must_not_be_read_is_no_counter(powercap):
    # As root, permissions hold nobody back: a folder in the file's place can't be read by anybody.
    for package in ("intel-rapl:0", "intel-rapl:1"):
        file = powercap / "intel-rapl" / package / "energy_uj"
        file.unlink()
        file.mkdir()
    assert [zone.name for zone in find_zones(powercap)] == ["dram"]
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert meter.energy() is None


def test_a_counter_that_goes_away_leaves_no_half_figure(powercap):
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    (powercap / "intel-rapl" / "intel-rapl:1" / "energy_uj").unlink()
    meter.poll(30.0)
    meter.end(60.0)
    assert meter.energy() is None


def test_gpus_have_nvmls_counter(monkeypatch, tmp_path):
    counters = {"GPU-aaaa-1": 5_000, "GPU-bbbb-2": 70_000}
    fake = make_nvml(TWO, nvmlDeviceGetTotalEnergyConsumption=lambda handle: counters[handle["uuid"]])
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = EnergyMeter(2, tmp_path)
    meter.begin(0.0)
    counters |= {"GPU-aaaa-1": 6_500, "GPU-bbbb-2": 71_000}
    meter.end(4.0)
    assert meter.energy() == Energy(source="NVML", seconds=4.0, gpu_joules=(1.5, 1.0))
    meter.close()


@pytest.mark.parametrize(
    ("gpus", "num_gpus", "failing"),
    [(TWO, 1, ["nvmlDeviceGetTotalEnergyConsumption"]), (TWO, 1, ["nvmlInit"]), ([CUT], 1, []), (TWO[:1], 2, [])],
    ids=["before Volta", "no driver", "cut by MIG", "fewer than the cell uses"],
)
def test_without_a_counter_of_each_gpu_there_is_none(monkeypatch, powercap, gpus, num_gpus, failing):
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml(gpus, failing=failing))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = EnergyMeter(num_gpus, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert (meter.energy().source, meter.energy().gpu_joules) == ("RAPL", ())


def test_a_gpu_that_falls_off_leaves_no_half_figure(monkeypatch, powercap):
    answers = iter([1_000, 2_000])
    fake = make_nvml(TWO, nvmlDeviceGetTotalEnergyConsumption=lambda _handle: next(answers))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    meter = EnergyMeter(1, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert meter.energy() is None


def test_zeus_reads_the_gpus_where_it_is_installed(monkeypatch, tmp_path):
    pytest.importorskip("zeus", reason="the extra `energy` is not installed")
    import pynvml
    from zeus.device import gpu
    from zeus.device.gpu import nvidia

    counters = {"GPU-aaaa-1": 5_000, "GPU-bbbb-2": 70_000}
    fake = make_nvml(
        TWO, failing=["nvmlDeviceGetC2cModeInfoV"],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counters[handle["uuid"]],
    )  # fmt: skip
    for name, value in vars(pynvml).items():
        if name.startswith(("NVML", "_nvml")) and not hasattr(fake, name):
            setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(nvidia, "pynvml", fake)
    monkeypatch.setattr(gpu, "_gpus", None)
    nvidia.nvml_is_available.cache_clear()
    meter = EnergyMeter(2, tmp_path)
    meter.begin(0.0)
    counters["GPU-aaaa-1"] = 6_500
    meter.end(2.0)
    nvidia.nvml_is_available.cache_clear()
    assert meter.energy().source.startswith("NVML by zeus 0.")
    assert meter.energy().gpu_joules == (1.5, 0.0)
