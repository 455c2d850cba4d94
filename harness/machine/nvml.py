"""Describe GPUs with NVML: which are visible, their properties and links. No torch and no CUDA context."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from harness.schema.host_record import Gpu, GpuLink

# nvmlGpuTopologyLevel_t of nvml.h, as `nvidia-smi topo -m` names the levels.
_TOPOLOGIES = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
# Advice by error name (nvmlReturn_t of nvml.h), for errors of NVML as a whole. After any other error, only the single
# answer is None.
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
    """The visible GPUs.

    Attributes:
        gpus: The GPUs in the order of CUDA's devices.
        links: The link between each pair of GPUs.
        note: Why there is no GPU, or how the listed GPUs are limited; None when neither applies.
    """

    gpus: tuple[Gpu, ...]
    links: tuple[GpuLink, ...]
    note: str | None


class VisibleGpus(NamedTuple):
    """NVML's handles of the visible GPUs.

    Attributes:
        handles: One handle per GPU, in the order of CUDA's devices.
        mig: True if the handles are MIG instances, which are parts of a GPU.
        note: Same as `GpuInventory.note`.
    """

    handles: list[Any]
    mig: bool
    note: str | None


@contextlib.contextmanager
def open_nvml() -> Iterator[Any]:
    """Initialise NVML and yield the pynvml module.

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
    """Describe all visible GPUs and their links; if there is no GPU, the note says why."""
    try:
        import pynvml
    except ImportError:
        return GpuInventory((), (), "the package nvidia-ml-py is not installed")
    try:
        with open_nvml() as nvml:
            visible = visible_gpus(nvml)
            gpus = tuple(_describe(handle, nvml, mig=visible.mig) for handle in visible.handles)
            return GpuInventory(gpus, () if visible.mig else tuple(_links(visible.handles, nvml)), visible.note)
    except pynvml.NVMLError as error:
        return GpuInventory((), (), _explain(error, pynvml))


def visible_gpus(nvml: Any) -> VisibleGpus:  # noqa: ANN401 - pynvml has no types
    """Return the GPUs that CUDA_VISIBLE_DEVICES makes visible to a cell, in CUDA's order by PCI bus.

    Raises:
        pynvml.NVMLError: When the driver does not answer.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    instance = _named_instance(setting, nvml)
    if instance is not None:
        return VisibleGpus([instance], mig=True, note=None)
    chosen = _chosen(handles, setting, nvml)
    if not any(_mig_is_on(handle, nvml) for handle in chosen):
        note = None if chosen else "CUDA_VISIBLE_DEVICES hides every GPU" if handles else "NVML lists none"
        return VisibleGpus(chosen, mig=False, note=note)
    instances = [instance for handle in chosen for instance in _instances(handle, nvml)]
    if not instances:
        return VisibleGpus([], mig=True, note=_NO_INSTANCE)
    return VisibleGpus(instances[:1], mig=True, note=_ONE_INSTANCE if len(instances) > 1 else None)


def query(nvml: Any, call: str, *args: Any) -> Any:  # noqa: ANN401
    """Make an NVML call by its name; return None when this driver, package or GPU does not support it."""
    try:
        return getattr(nvml, call)(*args)
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
            break  # CUDA ignores the first unknown entry and all after it
    return chosen


def _named_instance(setting: str | None, nvml: Any) -> Any:  # noqa: ANN401
    """Return the handle of the MIG instance that CUDA_VISIBLE_DEVICES names first; None if its first entry is none."""
    first = (setting or "").split(",")[0].strip()
    return query(nvml, "nvmlDeviceGetHandleByUUID", first) if first.startswith("MIG-") else None


def _mig_is_on(handle: Any, nvml: Any) -> bool:  # noqa: ANN401
    return bool(_current(query(nvml, "nvmlDeviceGetMigMode", handle)))


def _instances(handle: Any, nvml: Any) -> list[Any]:  # noqa: ANN401
    max_count = query(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    instances = [query(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index) for index in range(max_count)]
    return [instance for instance in instances if instance is not None]


def _describe(handle: Any, nvml: Any, *, mig: bool) -> Gpu:  # noqa: ANN401
    # A MIG instance does not answer questions about its board, so ask the GPU that contains the instance.
    board = (query(nvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle) if mig else handle
    memory = getattr(query(nvml, "nvmlDeviceGetMemoryInfo", handle), "total", None)
    capability = query(nvml, "nvmlDeviceGetCudaComputeCapability", board)
    cuda = query(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    power = query(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    mig_is_on = _current(query(nvml, "nvmlDeviceGetMigMode", board))
    persistence = query(nvml, "nvmlDeviceGetPersistenceMode", board)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=memory,
        compute_capability=capability and (int(capability[0]), int(capability[1])),
        driver=_text(query(nvml, "nvmlSystemGetDriverVersion")),
        cuda_driver=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        power_limit_watts=None if power is None else power / 1000,
        max_sm_clock_mhz=query(nvml, "nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_SM),
        max_memory_clock_mhz=query(nvml, "nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_MEM),
        mig=mig or mig_is_on,
        ecc=_current(query(nvml, "nvmlDeviceGetEccMode", board)),
        persistence=None if persistence is None else bool(persistence),
    )


def _links(handles: Sequence[Any], nvml: Any) -> Iterator[GpuLink]:  # noqa: ANN401
    """Yield the link of every pair of GPUs."""
    for (first, handle), (second, other) in combinations(enumerate(handles), 2):
        level = query(nvml, "nvmlDeviceGetTopologyCommonAncestor", handle, other)
        # Ask for the peer-to-peer status, not for the far end of each NVLink: with an NVSwitch, that is the switch.
        status = query(nvml, "nvmlDeviceGetP2PStatus", handle, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
        yield GpuLink(
            first=first,
            second=second,
            topology=_TOPOLOGIES.get(level),
            nvlink=None if status is None else int(status) == 0,  # NVML_P2P_STATUS_OK
        )


def _explain(error: Any, nvml: Any) -> str:  # noqa: ANN401
    value = getattr(error, "value", None)
    advice = next(
        (text for name, text in _ADVICE.items() if value is not None and getattr(nvml, name, None) == value), ""
    )
    return f"NVML: {error}" + (f" ({advice})" if advice else "")


def _current(mode: Any) -> bool | None:  # noqa: ANN401
    """Return the current mode from NVML's pair: the current mode and the mode after the next restart."""
    return None if mode is None else bool(mode[0])


def _text(value: Any) -> Any:  # noqa: ANN401 - old versions of pynvml return bytes
    return value.decode() if isinstance(value, bytes) else value
