"""Energy counters: RAPL files and NVML answers written from their documentation, none recorded.

Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import sys

import pytest

from harness.machine.energy_meter import EnergyMeter, RaplZone, find_zones
from harness.schema.host_record import Energy
from tests.make_nvml import MIG_GPU, TWO_GPUS, make_nvml

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
    """Lay out two packages with cores, one with memory, and a laptop's psys zone."""
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
    """Hide zeus from all tests but its own, whether it is installed or not."""
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


def test_a_second_end_is_ignored(powercap):
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    set_uj(powercap / "intel-rapl" / "intel-rapl:0", 999_000_000)
    meter.poll(30.0)
    meter.end(2.0)
    assert (meter.energy().seconds, meter.energy().cpu_joules) == (1.0, (0.0, 0.0))


def test_counter_overflow_is_handled(tmp_path):
    folder = make_zone(tmp_path / "intel-rapl" / "intel-rapl:0", "package-0", 90_000_000, range_uj=100_000_000)
    meter = EnergyMeter(0, tmp_path)
    meter.begin(0.0)
    for second, energy_uj in ((20, 40_000_000), (21, 41_000_000), (40, 95_000_000), (60, 45_000_000)):
        set_uj(folder, energy_uj)
        meter.poll(float(second))
    set_uj(folder, 46_000_000)
    meter.end(61.0)
    # 50 across the overflow, 55 (at 21 s no reading is due), 50 across it again, 1.
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


def test_an_unreadable_zone_is_ignored(powercap):
    # Root ignores permissions, but can't read a folder as a file.
    for package in ("intel-rapl:0", "intel-rapl:1"):
        file = powercap / "intel-rapl" / package / "energy_uj"
        file.unlink()
        file.mkdir()
    assert [zone.name for zone in find_zones(powercap)] == ["dram"]
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert meter.energy() is None


def test_a_counter_that_disappears_gives_no_result(powercap):
    meter = EnergyMeter(0, powercap)
    meter.begin(0.0)
    (powercap / "intel-rapl" / "intel-rapl:1" / "energy_uj").unlink()
    meter.poll(30.0)
    meter.end(60.0)
    assert meter.energy() is None


def test_gpu_energy_comes_from_nvml(monkeypatch, tmp_path):
    counters = {"GPU-aaaa-1": 5_000, "GPU-bbbb-2": 70_000}
    fake = make_nvml(TWO_GPUS, nvmlDeviceGetTotalEnergyConsumption=lambda handle: counters[handle["uuid"]])
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
    [
        (TWO_GPUS, 1, ["nvmlDeviceGetTotalEnergyConsumption"]),
        (TWO_GPUS, 1, ["nvmlInit"]),
        ([MIG_GPU], 1, []),
        (TWO_GPUS[:1], 2, []),
    ],
    ids=["before Volta", "no driver", "cut by MIG", "fewer than the cell uses"],
)
def test_gpu_energy_needs_a_counter_for_each_gpu(monkeypatch, powercap, gpus, num_gpus, failing):
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml(gpus, failing=failing))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = EnergyMeter(num_gpus, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert (meter.energy().source, meter.energy().gpu_joules) == ("RAPL", ())


def test_a_lost_gpu_gives_no_result(monkeypatch, powercap):
    answers = iter([1_000, 2_000])
    fake = make_nvml(TWO_GPUS, nvmlDeviceGetTotalEnergyConsumption=lambda _handle: next(answers))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    meter = EnergyMeter(1, powercap)
    meter.begin(0.0)
    meter.end(1.0)
    assert meter.energy() is None


def test_zeus_reads_the_gpus_if_installed(monkeypatch, tmp_path):
    pytest.importorskip("zeus", reason="the extra `energy` is not installed")
    import pynvml
    from zeus.device import gpu
    from zeus.device.gpu import nvidia

    counters = {"GPU-aaaa-1": 5_000, "GPU-bbbb-2": 70_000}
    fake = make_nvml(
        TWO_GPUS, failing=["nvmlDeviceGetC2cModeInfoV"],
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
