"""NVML samples while a cell runs: units, interval, and errors that must not affect the cell."""

from __future__ import annotations

import sys

import pytest

from harness.machine.gpu_monitor import THROTTLE_REASONS, GpuMonitor
from harness.machine.support import num_gpus_used
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.host_record import GpuReading
from tests.make_nvml import MIG_GPU, TWO_GPUS, NVMLError, make_nvml
from tests.make_records import make_machine, make_record


@pytest.fixture
def monitoring(monkeypatch):
    def install(num_gpus, *args, visible=None, **kwargs):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(*args, **kwargs))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return GpuMonitor(num_gpus)

    return install


def test_a_reading_is_in_the_records_units(monitoring):
    monitor = monitoring(1, TWO_GPUS)
    monitor.poll(2.5)
    assert monitor.readings == [
        GpuReading(
            at_s=2.5,
            gpu=0,
            sm_clock_mhz=1410,
            memory_clock_mhz=6250,
            power_watts=287.431,
            temperature_celsius=64,
            used_bytes=1_028 * 2**20,
            throttle_reasons=("sw_power_cap",),
        )
    ]


def test_it_samples_once_a_second_however_often_it_is_polled(monitoring):
    monitor = monitoring(2, TWO_GPUS)
    for tenth in range(1, 46):  # 0.1 s to 4.5 s
        monitor.poll(tenth / 10)
    assert [(reading.at_s, reading.gpu) for reading in monitor.readings] == [
        (at, gpu) for at in (0.1, 1.0, 2.0, 3.0, 4.0) for gpu in (0, 1)
    ]


def test_only_the_cells_gpus_are_sampled_in_cuda_order(monitoring):
    calls_made = []
    monitor = monitoring(
        1, TWO_GPUS, visible="1,0", nvmlDeviceGetPowerUsage=lambda handle: calls_made.append(handle) or 1000
    )
    monitor.poll(1.0)
    assert calls_made == [TWO_GPUS[1]]
    assert [reading.gpu for reading in monitor.readings] == [0]


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x5, ("sw_power_cap",)),
        (0x48, ("hw_slowdown", "hw_thermal_slowdown")),
        (0x8001, ("bit_15",)),  # from a driver newer than the table
    ],
)
def test_throttle_reasons_have_nvmls_names_and_exclude_idle(monitoring, mask, names):
    monitor = monitoring(1, TWO_GPUS, nvmlDeviceGetCurrentClocksEventReasons=mask)
    monitor.poll(1.0)
    assert monitor.readings[0].throttle_reasons == names


def test_the_names_match_the_installed_package():
    import pynvml

    for bit, name in THROTTLE_REASONS.items():
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{camel}") == bit


@pytest.mark.parametrize("how", ["failing", "missing"])
def test_older_drivers_use_the_older_call(monitoring, how):
    monitor = monitoring(1, TWO_GPUS, **{how: ["nvmlDeviceGetCurrentClocksEventReasons"]})
    monitor.poll(1.0)
    assert monitor.readings[0].throttle_reasons == ("sw_power_cap",)


FIELD_OF_CALL = {
    "nvmlDeviceGetPowerUsage": "power_watts",
    "nvmlDeviceGetTemperature": "temperature_celsius",
    "nvmlDeviceGetMemoryInfo": "used_bytes",
}


@pytest.mark.parametrize("call", FIELD_OF_CALL)
def test_an_unanswered_call_is_none_without_affecting_the_rest(monitoring, call):
    monitor = monitoring(1, TWO_GPUS, failing=[call])
    monitor.poll(1.0)
    assert getattr(monitor.readings[0], FIELD_OF_CALL[call]) is None
    assert sum(value is None for value in monitor.readings[0].model_dump().values()) == 1


def test_a_lost_gpu_ends_only_its_own_readings(monitoring):
    lost = []

    def answer(handle, *_):
        if handle in lost:
            raise NVMLError("NVML_ERROR_GPU_IS_LOST")
        return 1000

    calls = ("ClockInfo", "PowerUsage", "Temperature", "MemoryInfo", "CurrentClocksEventReasons")
    calls += ("CurrentClocksThrottleReasons",)
    monitor = monitoring(2, TWO_GPUS, **{f"nvmlDeviceGet{call}": answer for call in calls})
    monitor.poll(1.0)
    lost.append(TWO_GPUS[0])
    monitor.poll(2.0)
    lost.clear()
    monitor.poll(3.0)
    assert [(reading.at_s, reading.gpu) for reading in monitor.readings] == [(1.0, 0), (1.0, 1), (2.0, 1), (3.0, 1)]


def test_a_mig_instance_has_memory_but_no_power(monitoring):
    monitor = monitoring(1, [MIG_GPU])
    monitor.poll(1.0)
    (reading,) = monitor.readings
    assert (reading.used_bytes, reading.power_watts, reading.throttle_reasons) == (1_028 * 2**20, None, None)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_without_a_driver_there_are_no_readings(monitoring, call):
    monitor = monitoring(1, TWO_GPUS, failing=[call])
    monitor.poll(1.0)
    monitor.close()
    assert monitor.readings == []


def test_without_the_package_there_are_no_readings(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monitor = GpuMonitor(1)
    monitor.poll(1.0)
    assert monitor.readings == []


def test_a_cell_on_the_cpu_makes_no_nvml_call(monitoring):
    calls_made = []
    monitor = monitoring(0, TWO_GPUS, nvmlInit=lambda: calls_made.append("init"))
    monitor.poll(1.0)
    monitor.close()
    assert (calls_made, monitor.readings) == ([], [])


def test_nvml_is_shut_down_once(monitoring):
    closed = []
    monitor = monitoring(1, TWO_GPUS, nvmlShutdown=lambda: closed.append("shutdown"))
    monitor.poll(1.0)
    monitor.close()
    monitor.close()
    monitor.poll(5.0)
    assert (closed, len(monitor.readings)) == (["shutdown"], 1)


@pytest.mark.parametrize(
    ("device", "num_seen", "used"),
    [("cpu", 2, 0), ("cpu-ddp2", 2, 0), ("gpu", 2, 1), ("gpu-ddp", 3, 3), ("gpu-ddp2", 3, 2)],
)
def test_a_cell_uses_one_gpu_per_rank(device, num_seen, used):
    config = make_record(axes={"device": device}, outcome="oom").config
    assert isinstance(config, FineTuneConfig)
    machine = make_machine(gpus=["NVIDIA A10G"] * num_seen)
    assert num_gpus_used(config, machine) == used
    majority = BaselineConfig(classifier="majority", data=config.data, limits=config.limits)
    assert num_gpus_used(majority, machine) == 0
