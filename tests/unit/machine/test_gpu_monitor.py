"""NVML's readings while a cell runs: in the record's units, about once a second, and never at the cell's cost."""

from __future__ import annotations

import sys

import pytest

from harness.machine.gpu_monitor import THROTTLE_REASONS, GpuMonitor
from harness.machine.support import num_gpus_used
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.host_record import GpuReading
from tests.make_nvml import CUT, TWO, NVMLError, make_nvml
from tests.make_records import make_machine, make_record


@pytest.fixture
def watching(monkeypatch):
    def install(num_gpus, *args, visible=None, **kwargs):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(*args, **kwargs))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return GpuMonitor(num_gpus)

    return install


def test_a_reading_is_in_the_records_units(watching):
    watch = watching(1, TWO)
    watch.poll(2.5)
    assert watch.readings == [
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


def test_it_reads_once_a_second_however_often_it_is_woken(watching):
    watch = watching(2, TWO)
    for tenth in range(1, 46):  # 0.1 s to 4.5 s
        watch.poll(tenth / 10)
    assert [(reading.at_s, reading.gpu) for reading in watch.readings] == [
        (at, gpu) for at in (0.1, 1.0, 2.0, 3.0, 4.0) for gpu in (0, 1)
    ]


def test_only_the_gpus_that_the_cell_uses_are_asked_in_cudas_order(watching):
    asked = []
    watch = watching(1, TWO, visible="1,0", nvmlDeviceGetPowerUsage=lambda handle: asked.append(handle) or 1000)
    watch.poll(1.0)
    assert asked == [TWO[1]]
    assert [reading.gpu for reading in watch.readings] == [0]


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x5, ("sw_power_cap",)),
        (0x48, ("hw_slowdown", "hw_thermal_slowdown")),
        (0x8001, ("bit_15",)),  # of a driver newer than this table
    ],
)
def test_throttle_reasons_are_nvmls_names_and_idle_is_none(watching, mask, names):
    watch = watching(1, TWO, nvmlDeviceGetCurrentClocksEventReasons=mask)
    watch.poll(1.0)
    assert watch.readings[0].throttle_reasons == names


def test_the_names_are_those_of_the_installed_package():
    import pynvml

    for bit, name in THROTTLE_REASONS.items():
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{camel}") == bit


@pytest.mark.parametrize("how", ["failing", "missing"])
def test_an_older_driver_is_asked_by_the_older_name(watching, how):
    watch = watching(1, TWO, **{how: ["nvmlDeviceGetCurrentClocksEventReasons"]})
    watch.poll(1.0)
    assert watch.readings[0].throttle_reasons == ("sw_power_cap",)


ASKED = {
    "nvmlDeviceGetPowerUsage": "power_watts",
    "nvmlDeviceGetTemperature": "temperature_celsius",
    "nvmlDeviceGetMemoryInfo": "used_bytes",
}


@pytest.mark.parametrize("call", ASKED)
def test_what_a_gpu_does_not_tell_is_none_and_the_rest_stays(watching, call):
    watch = watching(1, TWO, failing=[call])
    watch.poll(1.0)
    assert getattr(watch.readings[0], ASKED[call]) is None
    assert sum(value is None for value in watch.readings[0].model_dump().values()) == 1


def test_a_gpu_that_falls_off_ends_its_own_readings_alone(watching):
    lost = []

    def answer(handle, *_):
        if handle in lost:
            raise NVMLError("NVML_ERROR_GPU_IS_LOST")
        return 1000

    calls = ("ClockInfo", "PowerUsage", "Temperature", "MemoryInfo", "CurrentClocksEventReasons")
    calls += ("CurrentClocksThrottleReasons",)
    watch = watching(2, TWO, **{f"nvmlDeviceGet{call}": answer for call in calls})
    watch.poll(1.0)
    lost.append(TWO[0])
    watch.poll(2.0)
    lost.clear()
    watch.poll(3.0)
    assert [(reading.at_s, reading.gpu) for reading in watch.readings] == [(1.0, 0), (1.0, 1), (2.0, 1), (3.0, 1)]


def test_an_instance_of_mig_tells_its_memory_and_not_the_boards_power(watching):
    watch = watching(1, [CUT])
    watch.poll(1.0)
    (reading,) = watch.readings
    assert (reading.used_bytes, reading.power_watts, reading.throttle_reasons) == (1_028 * 2**20, None, None)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_without_a_driver_there_are_no_readings_and_no_failure(watching, call):
    watch = watching(1, TWO, failing=[call])
    watch.poll(1.0)
    watch.close()
    assert watch.readings == []


def test_without_the_package_there_are_no_readings_and_no_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = GpuMonitor(1)
    watch.poll(1.0)
    assert watch.readings == []


def test_nothing_is_asked_for_a_cell_on_the_cpu(watching):
    asked = []
    watch = watching(0, TWO, nvmlInit=lambda: asked.append("init"))
    watch.poll(1.0)
    watch.close()
    assert (asked, watch.readings) == ([], [])


def test_nvml_is_let_go_once(watching):
    closed = []
    watch = watching(1, TWO, nvmlShutdown=lambda: closed.append("shutdown"))
    watch.poll(1.0)
    watch.close()
    watch.close()
    watch.poll(5.0)
    assert (closed, len(watch.readings)) == (["shutdown"], 1)


@pytest.mark.parametrize(
    ("device", "num_seen", "used"),
    [("cpu", 2, 0), ("cpu-ddp2", 2, 0), ("gpu", 2, 1), ("gpu-ddp", 3, 3), ("gpu-ddp2", 3, 2)],
)
def test_a_cell_uses_one_gpu_a_rank(device, num_seen, used):
    config = make_record(axes={"device": device}, outcome="oom").config
    assert isinstance(config, FineTuneConfig)
    machine = make_machine(gpus=["NVIDIA A10G"] * num_seen)
    assert num_gpus_used(config, machine) == used
    majority = BaselineConfig(classifier="majority", data=config.data, limits=config.limits)
    assert num_gpus_used(majority, machine) == 0
