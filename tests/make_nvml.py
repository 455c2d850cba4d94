"""A fake pynvml.

Its answers are written from NVIDIA's documentation (nvml.h and "NVML API Reference Guide", driver branch 580) and from
the constants of nvidia-ml-py 13.580: bytes, milliwatts, millijoules, MHz, degrees Celsius, (current, pending) modes.
None is recorded from a GPU.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TWO_GPUS = [{"name": "NVIDIA A10G", "uuid": "GPU-aaaa-1"}, {"name": b"NVIDIA L4", "uuid": "GPU-bbbb-2"}]
# An A100 with two MIG instances, which NVML names after their board and profile.
MIG_GPU = {
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
    """Build a module with the NVML calls of these GPUs.

    Args:
        gpus: The GPUs; their dictionaries serve as handles.
        failing: Calls that raise, with the name of the error for each, by default "Not Supported".
        missing: Calls that the module lacks, like an older version of the package.
        replaced: Answers of calls, or functions that return them.
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
        "nvmlDeviceGetCudaComputeCapability": _board_only(lambda _: (8, 6)),
        "nvmlSystemGetDriverVersion": lambda: "580.95.05",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlDeviceGetEnforcedPowerLimit": _board_only(lambda _: 300_000),
        "nvmlDeviceGetMaxClockInfo": _board_only(lambda _, kind: {1: 1710, 2: 6251}[kind]),
        "nvmlDeviceGetMigMode": _board_only(lambda handle: handle.get("mig", (0, 1))),
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7 if "instances" in handle else 0,
        "nvmlDeviceGetMigDeviceHandleByIndex": _instance,
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda part: next(
            gpu for gpu in gpus if part in gpu.get("instances", [])
        ),
        "nvmlDeviceGetEccMode": _board_only(lambda _: (1, 0)),
        "nvmlDeviceGetPersistenceMode": _board_only(lambda _: 1),
        "nvmlDeviceGetComputeRunningProcesses": _board_only(lambda _: []),
        "nvmlDeviceGetGraphicsRunningProcesses": _board_only(lambda _: []),
        "nvmlDeviceGetTopologyCommonAncestor": lambda _first, _second: 30,
        "nvmlDeviceGetP2PStatus": lambda _first, _second, _kind: 5,
        "nvmlDeviceGetClockInfo": _board_only(lambda _, kind: {1: 1410, 2: 6250}[kind]),
        "nvmlDeviceGetPowerUsage": _board_only(lambda _: 287_431),
        "nvmlDeviceGetTotalEnergyConsumption": _board_only(lambda _: 12_345_678),
        "nvmlDeviceGetC2cModeInfoV": lambda _: types.SimpleNamespace(isC2cEnabled=0),
        "nvmlDeviceGetArchitecture": lambda _: 8,
        "nvmlDeviceGetTemperature": _board_only(lambda _, _sensor: 64),
        "nvmlDeviceGetCurrentClocksEventReasons": _board_only(lambda _: 0x4),
        "nvmlDeviceGetCurrentClocksThrottleReasons": _board_only(lambda _: 0x4),
    }
    errors = failing if isinstance(failing, Mapping) else dict.fromkeys(failing, "NVML_ERROR_NOT_SUPPORTED")
    for name, answer in answers.items():
        if name in missing:
            continue
        reply = replaced.get(name, answer)
        setattr(
            fake, name, _raising(errors[name]) if name in errors else reply if callable(reply) else _returning(reply)
        )
    fake.NVMLError = NVMLError
    fake.NVML_CLOCK_SM, fake.NVML_CLOCK_MEM, fake.NVML_TEMPERATURE_GPU, fake.NVML_P2P_CAPS_INDEX_NVLINK = 1, 2, 0, 2
    for name, (code, _) in ERROR_CODES.items():
        setattr(fake, name, code)
    return fake


def _board_only(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Raise for MIG instances: the call is supported for whole boards only."""

    def reply(handle: dict[str, Any], *rest: Any) -> Any:
        if handle.get("part"):
            raise NVMLError
        return answer(handle, *rest)

    return reply


def _by_uuid(gpus: list[dict[str, Any]], uuid: str) -> dict[str, Any]:
    known = [*gpus, *(instance for gpu in gpus for instance in gpu.get("instances", []))]
    matches = [gpu for gpu in known if gpu["uuid"] == uuid]
    if not matches:
        raise NVMLError
    return matches[0]


def _instance(gpu: dict[str, Any], index: int) -> dict[str, Any]:
    if index >= len(gpu.get("instances", [])):
        raise NVMLError
    return gpu["instances"][index]


def _raising(error: str) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise NVMLError(error)

    return fail


def _returning(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer
