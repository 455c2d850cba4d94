"""A stand-in for pynvml.

SOURCE: every answer here is written from NVIDIA's NVML documentation (nvml.h and "NVML API Reference Guide", driver branch
580) and from nvidia-ml-py 13.580's own constants: bytes, milliwatts, millijoules, MHz, degrees Celsius, (current, pending) modes. None is
recorded from a GPU. When a GPU has run the checks, its own answers take the place of these.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TWO = [{"name": "NVIDIA A10G", "uuid": "GPU-aaaa-1"}, {"name": b"NVIDIA L4", "uuid": "GPU-bbbb-2"}]
# An A100 that MIG has cut into two instances; NVML names them after their board and profile.
CUT = {
    "name": "NVIDIA A100-SXM4-40GB",
    "uuid": "GPU-cccc-3",
    "mig": (1, 1),
    "instances": [
        {"name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "uuid": "MIG-dddd-4", "part": True, "memory": 4_864 * 2**20},
        {"name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "uuid": "MIG-eeee-5", "part": True, "memory": 19_968 * 2**20},
    ],
}
ERROR_CODES = {
    "NVML_ERROR_NOT_SUPPORTED": (3, "Not Supported"),
    "NVML_ERROR_DRIVER_NOT_LOADED": (9, "Driver Not Loaded"),
    "NVML_ERROR_LIBRARY_NOT_FOUND": (12, "NVML Shared Library Not Found"),
    "NVML_ERROR_GPU_IS_LOST": (15, "GPU is lost"),
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (18, "RM has detected an NVML/RM version mismatch."),
}


class NVMLError(Exception):
    def __init__(self, name: str = "NVML_ERROR_NOT_SUPPORTED") -> None:
        self.value, text = ERROR_CODES[name]
        super().__init__(text)


def make_nvml(
    gpus: list[dict[str, Any]],
    failing: Iterable[str] | Mapping[str, str] = (),
    missing: Iterable[str] = (),
    **replaced: Any,
) -> types.ModuleType:
    """A module that answers for these GPUs.

    Args:
        failing: Calls that raise, each with an error's name, or "Not Supported".
        missing: Calls that are not there, as in an older version of the package.
        replaced: Answers of calls, or functions that give them.
    """
    fake = types.ModuleType("pynvml")

    answers: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": lambda index: gpus[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: _by_uuid(gpus, uuid),
        "nvmlDeviceGetUUID": lambda handle: handle["uuid"],
        "nvmlDeviceGetName": lambda handle: handle["name"],
        "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(
            total=handle.get("memory", 23_028 * 2**20), free=22_000 * 2**20, used=1_028 * 2**20
        ),
        "nvmlDeviceGetCudaComputeCapability": _whole(lambda _: (8, 6)),
        "nvmlSystemGetDriverVersion": lambda: "580.95.05",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlDeviceGetEnforcedPowerLimit": _whole(lambda _: 300_000),
        "nvmlDeviceGetMaxClockInfo": _whole(lambda _, kind: {1: 1710, 2: 6251}[kind]),
        "nvmlDeviceGetMigMode": _whole(lambda handle: handle.get("mig", (0, 1))),
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7 if "instances" in handle else 0,
        "nvmlDeviceGetMigDeviceHandleByIndex": _instance,
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda part: next(
            gpu for gpu in gpus if part in gpu.get("instances", [])
        ),
        "nvmlDeviceGetEccMode": _whole(lambda _: (1, 0)),
        "nvmlDeviceGetPersistenceMode": _whole(lambda _: 1),
        "nvmlDeviceGetComputeRunningProcesses": _whole(lambda _: []),
        "nvmlDeviceGetGraphicsRunningProcesses": _whole(lambda _: []),
        "nvmlDeviceGetTopologyCommonAncestor": lambda _one, _other: 30,
        "nvmlDeviceGetP2PStatus": lambda _one, _other, _kind: 5,
        "nvmlDeviceGetClockInfo": _whole(lambda _, kind: {1: 1410, 2: 6250}[kind]),
        "nvmlDeviceGetPowerUsage": _whole(lambda _: 287_431),
        "nvmlDeviceGetTotalEnergyConsumption": _whole(lambda _: 12_345_678),
        "nvmlDeviceGetC2cModeInfoV": lambda _: types.SimpleNamespace(isC2cEnabled=0),
        "nvmlDeviceGetArchitecture": lambda _: 8,
        "nvmlDeviceGetTemperature": _whole(lambda _, _sensor: 64),
        "nvmlDeviceGetCurrentClocksEventReasons": _whole(lambda _: 0x4),
        "nvmlDeviceGetCurrentClocksThrottleReasons": _whole(lambda _: 0x4),
    }
    errors = failing if isinstance(failing, Mapping) else dict.fromkeys(failing, "NVML_ERROR_NOT_SUPPORTED")
    for name, answer in answers.items():
        if name in missing:
            continue
        told = replaced.get(name, answer)
        setattr(fake, name, _refusing(errors[name]) if name in errors else told if callable(told) else _giving(told))
    fake.NVMLError = NVMLError
    fake.NVML_CLOCK_SM, fake.NVML_CLOCK_MEM, fake.NVML_TEMPERATURE_GPU, fake.NVML_P2P_CAPS_INDEX_NVLINK = 1, 2, 0, 2
    for name, (code, _) in ERROR_CODES.items():
        setattr(fake, name, code)
    return fake


def _whole(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Of the board: an instance has no such answer of its own."""

    def give(handle: dict[str, Any], *rest: Any) -> Any:
        if handle.get("part"):
            raise NVMLError
        return answer(handle, *rest)

    return give


def _by_uuid(gpus: list[dict[str, Any]], uuid: str) -> dict[str, Any]:
    known = [*gpus, *(instance for gpu in gpus for instance in gpu.get("instances", []))]
    found = [gpu for gpu in known if gpu["uuid"] == uuid]
    if not found:
        raise NVMLError
    return found[0]


def _instance(gpu: dict[str, Any], index: int) -> dict[str, Any]:
    if index >= len(gpu.get("instances", [])):
        raise NVMLError
    return gpu["instances"][index]


def _refusing(error: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise NVMLError(error)

    return refuse


def _giving(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer
