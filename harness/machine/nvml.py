"""GPUs as NVML tells of them: which of them a cell sees, what they are, how they are linked (no torch, no CUDA context)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from harness.schema.host_record import Gpu, GpuLink

# nvmlGpuTopologyLevel_t of nvml.h, in the words of `nvidia-smi topo -m`.
_TOPOLOGIES = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
# nvmlReturn_t of nvml.h, and what to do. A driver that lacks or denies one answer is no matter for the user.
_ADVICE = {
    "NVML_ERROR_DRIVER_NOT_LOADED": "an NVIDIA driver is installed and not loaded: restart, or see `dmesg`",
    "NVML_ERROR_LIBRARY_NOT_FOUND": "no NVIDIA driver is installed",
    "NVML_ERROR_GPU_IS_LOST": "a GPU fell off the bus: restart the machine, and look for Xid in `dmesg`",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (
        "the driver's library and its kernel module are of different versions, as after an update: restart the machine"
    ),
}
_NO_INSTANCE = (
    "MIG is on and no GPU has an instance: make one (`nvidia-smi mig -cgi PROFILE -C`), or turn MIG off "
    "(`nvidia-smi -mig 0`)"
)
_ONE_INSTANCE = "MIG is on: a CUDA process sees a single instance, the first; CUDA_VISIBLE_DEVICES=MIG-... chooses one"


class GpuInventory(NamedTuple):
    """What is there; `note` says why there is none, or what to know of those that are."""

    gpus: tuple[Gpu, ...]
    links: tuple[GpuLink, ...]
    note: str | None


class VisibleGpu(NamedTuple):
    """NVML's handles in the order of CUDA's devices; `mig`: each is an instance of a GPU that MIG has divided."""

    handles: list[Any]
    mig: bool
    note: str | None


@contextlib.contextmanager
def open_nvml() -> Iterator[Any]:
    """Give pynvml, ready to be asked.

    Raises:
        ImportError: When nvidia-ml-py is not installed.
        pynvml.NVMLError: When no driver answers.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def describe_gpus() -> GpuInventory:
    """All GPUs that CUDA_VISIBLE_DEVICES leaves, or none and why."""
    try:
        import pynvml
    except ImportError:
        return GpuInventory((), (), "the package nvidia-ml-py is not installed")
    try:
        with open_nvml() as nvml:
            seen = visible_gpus(nvml)
            gpus = tuple(_describe(handle, nvml, mig=seen.mig) for handle in seen.handles)
            return GpuInventory(gpus, () if seen.mig else tuple(_links(seen.handles, nvml)), seen.note)
    except pynvml.NVMLError as error:
        return GpuInventory((), (), _explain(error, pynvml))


def visible_gpus(nvml: Any) -> VisibleGpu:  # noqa: ANN401 - pynvml has no types
    """The GPUs that a cell of this environment would see, in CUDA's order by PCI bus.

    Raises:
        pynvml.NVMLError: When the driver does not answer.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = _named_instance(setting, nvml)
    if named is not None:
        return VisibleGpu([named], mig=True, note=None)
    chosen = _chosen(handles, setting, nvml)
    if not any(_mig_is_on(handle, nvml) for handle in chosen):
        note = None if chosen else "CUDA_VISIBLE_DEVICES hides every GPU" if handles else "NVML lists none"
        return VisibleGpu(chosen, mig=False, note=note)
    instances = [instance for handle in chosen for instance in _instances(handle, nvml)]
    if not instances:
        return VisibleGpu([], mig=True, note=_NO_INSTANCE)
    return VisibleGpu(instances[:1], mig=True, note=_ONE_INSTANCE if len(instances) > 1 else None)


def ask(nvml: Any, question: str, *about: Any) -> Any:  # noqa: ANN401
    """Ask NVML by a call's name; None where this driver, package or GPU has no answer."""
    try:
        return getattr(nvml, question)(*about)
    except (nvml.NVMLError, AttributeError):
        return None


def _chosen(handles: list[Any], setting: str | None, nvml: Any) -> list[Any]:  # noqa: ANN401
    if setting is None:
        return handles
    chosen = []
    for entry in (part.strip() for part in setting.split(",")):
        by_uuid = [
            handle for handle in handles if entry and str(_text(nvml.nvmlDeviceGetUUID(handle))).startswith(entry)
        ]
        if entry.isdigit() and int(entry) < len(handles):
            chosen.append(handles[int(entry)])
        elif by_uuid:
            chosen.append(by_uuid[0])
        else:
            break  # CUDA itself stops at the first entry it does not know
    return chosen


def _named_instance(setting: str | None, nvml: Any) -> Any:  # noqa: ANN401
    """The handle of the MIG instance that CUDA_VISIBLE_DEVICES begins with, or None."""
    first = (setting or "").split(",")[0].strip()
    return ask(nvml, "nvmlDeviceGetHandleByUUID", first) if first.startswith("MIG-") else None


def _mig_is_on(handle: Any, nvml: Any) -> bool:  # noqa: ANN401
    return bool(_current(ask(nvml, "nvmlDeviceGetMigMode", handle)))


def _instances(handle: Any, nvml: Any) -> list[Any]:  # noqa: ANN401
    most = ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    found = [ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index) for index in range(most)]
    return [instance for instance in found if instance is not None]


def _describe(handle: Any, nvml: Any, *, mig: bool) -> Gpu:  # noqa: ANN401
    # What belongs to the board as a whole is asked of the GPU that an instance is a part of.
    board = (ask(nvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle) if mig else handle
    memory = getattr(ask(nvml, "nvmlDeviceGetMemoryInfo", handle), "total", None)
    capability = ask(nvml, "nvmlDeviceGetCudaComputeCapability", board)
    cuda = ask(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    power = ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    mig_is_on = _current(ask(nvml, "nvmlDeviceGetMigMode", board))
    persistence = ask(nvml, "nvmlDeviceGetPersistenceMode", board)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=memory,
        compute_capability=capability and (int(capability[0]), int(capability[1])),
        driver=_text(ask(nvml, "nvmlSystemGetDriverVersion")),
        cuda_driver=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        power_limit_watts=None if power is None else power / 1000,
        max_sm_clock_mhz=ask(nvml, "nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_SM),
        max_memory_clock_mhz=ask(nvml, "nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_MEM),
        mig=mig or mig_is_on,
        ecc=_current(ask(nvml, "nvmlDeviceGetEccMode", board)),
        persistence=None if persistence is None else bool(persistence),
    )


def _links(handles: Sequence[Any], nvml: Any) -> Iterator[GpuLink]:  # noqa: ANN401
    """What lies between every two GPUs."""
    for (first, one), (second, other) in combinations(enumerate(handles), 2):
        level = ask(nvml, "nvmlDeviceGetTopologyCommonAncestor", one, other)
        # Asked as peer-to-peer: behind an NVSwitch a link's own far end is the switch, not the other GPU.
        status = ask(nvml, "nvmlDeviceGetP2PStatus", one, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
        yield GpuLink(
            first=first,
            second=second,
            topology=_TOPOLOGIES.get(level),
            nvlink=None if status is None else int(status) == 0,  # NVML_P2P_STATUS_OK
        )


def _explain(error: Any, nvml: Any) -> str:  # noqa: ANN401
    value = getattr(error, "value", None)
    advice = next(
        (words for name, words in _ADVICE.items() if value is not None and getattr(nvml, name, None) == value), ""
    )
    return f"NVML: {error}" + (f" ({advice})" if advice else "")


def _current(mode: Any) -> bool | None:  # noqa: ANN401
    """A mode that NVML gives as now and after the next restart."""
    return None if mode is None else bool(mode[0])


def _text(value: Any) -> Any:  # noqa: ANN401 - old pynvml gives bytes
    return value.decode() if isinstance(value, bytes) else value
