"""TODO: say in one line what this module is for."""

from __future__ import annotations

from typing import Literal

from harness.schema.settings import Settings

CapMethod = Literal["control_group_v1", "control_group_v2", "rlimit_data", "cuda_fraction"]


class Cpu(Settings):
    """The processor as this process may use it.

    Attributes:
        flags: Those that decide what arithmetic runs fast (see machine.py), sorted.
        num_usable: Logical CPUs left by affinity and the control group's quota.
    """

    model: str
    flags: tuple[str, ...]
    num_logical: int
    num_physical: int | None
    num_usable: int


class Gpu(Settings):
    """One GPU as NVML sees it; None where NVML gives no answer."""

    name: str
    memory_bytes: int | None
    compute_capability: tuple[int, int] | None
    driver: str | None
    cuda_driver: str | None
    power_limit_watts: float | None
    max_sm_clock_mhz: int | None
    max_memory_clock_mhz: int | None
    mig: bool | None
    ecc: bool | None
    persistence: bool | None


class GpuLink(Settings):
    """What lies between two GPUs, by their indices among those seen; None where NVML gives no answer.

    Attributes:
        topology: In the words of `nvidia-smi topo -m`: PIX (one PCIe switch), PXB (several), PHB (a host bridge), NODE
            (within a NUMA node), SYS (between them).
        nvlink: Whether they reach each other over NVLink, directly or by a switch.
    """

    first: int
    second: int
    topology: str | None
    nvlink: bool | None


class Machine(Settings):
    """What a computer is, without what would name it.

    Attributes:
        id: Folder name: CPU model and flags, cores, memory and GPUs; equal on two hosts of one type.
        host: Salted hash of the operating system's machine id, telling hosts of one type apart; None if it has none.
        memory_limit_bytes: The control group's limit where it is below `memory_bytes`.
        cloud_product: The firmware's product name where the vendor is a cloud (on EC2 it is the instance type).
        gpu_note: Why `gpus` is empty, where a reason is known; or what limits those that are there.
        gpu_links: Of every two GPUs; none in records of schema version 1.
    """

    id: str
    host: str | None
    system: str
    kernel: str
    cpu: Cpu
    memory_bytes: int
    memory_limit_bytes: int | None
    swap_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_note: str | None
    cloud_vendor: str | None
    cloud_product: str | None
    python: str
    allocator: str
    gpu_links: tuple[GpuLink, ...] = ()


class StatedInstance(Settings):
    """What the user said of the machine: a fact about it, never a price."""

    instance: str
    region: str | None


class DetectedInstance(Settings):
    """What the cloud's metadata service said of the machine: its own instance, and nothing that names an account.

    Attributes:
        is_spot: Whether the cloud may take it away (spot, pre-emptible); None where it does not say.
    """

    vendor: Literal["aws", "gcp", "azure"]
    instance: str
    region: str | None
    is_spot: bool | None


class Git(Settings):
    """The harness's own checkout."""

    commit: str
    dirty: bool


class MemoryUser(Settings):
    """Another process that held memory when the cell began; `gpu` is the GPU's index, None for main memory."""

    name: str
    num_bytes: int
    gpu: int | None


class Load(Settings):
    """The machine while the cell ran, in CPU seconds; None where the system gives no answer.

    Attributes:
        available_memory_bytes: Before the cell began.
        swap_used_bytes: Before the cell began.
        holders: Largest first, before the cell began; None where nobody looked.
        system_busy_s: All processes, over the cell's whole life.
        cell_s: The cell's processes.
        parent_s: The harness's own parent process.
        steal_s: Taken by the hypervisor.
        swapped_bytes: Read from and written to swap, by all processes.
        major_faults: Pages that any process had to wait for a disk to read.
        quota_periods, throttled_periods: Of the harness's control group: periods in which it ran, and in which its CPU
            quota was used up; None without a quota.
        thermal_throttles: How often the usable cores were slowed by their temperature.
        clock_mhz: Mean of the usable cores' clocks, every 5 s; none without readings.
    """

    available_memory_bytes: int
    system_busy_s: float | None
    cell_s: float | None
    parent_s: float
    steal_s: float | None
    swap_used_bytes: int | None = None
    holders: tuple[MemoryUser, ...] | None = None
    swapped_bytes: int | None = None
    major_faults: int | None = None
    quota_periods: int | None = None
    throttled_periods: int | None = None
    thermal_throttles: int | None = None
    clock_mhz: tuple[float, ...] | None = None


class GpuReading(Settings):
    """What NVML told the parent of one GPU at one moment, about once a second; None where it gives no answer.

    Attributes:
        at_s: Since the cell was ordered.
        gpu: Index among the GPUs that the cell sees.
        used_bytes: Of all processes.
        throttle_reasons: NVML's names, e.g. `sw_power_cap`; idle is none.
    """

    at_s: float
    gpu: int
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_watts: float | None
    temperature_celsius: int | None
    used_bytes: int | None
    throttle_reasons: tuple[str, ...] | None


class Energy(Settings):
    """What counters of energy told from the order of a cell to the end of its test evaluation, or to its own end.

    They count whole devices: what other processes had of them is in it.

    Attributes:
        source: The instruments.
        seconds: Between the two readings.
        gpu_joules: Of each GPU that the cell uses.
        cpu_joules: Of each processor package, all its cores.
        dram_joules: Of each package's memory, where that is counted apart.
    """

    source: str
    seconds: float
    gpu_joules: tuple[float, ...] = ()
    cpu_joules: tuple[float, ...] = ()
    dram_joules: tuple[float, ...] = ()


class MemoryCapFacts(Settings):
    """The limit that a cell's memory was held under.

    Attributes:
        exact: False where the method counts something else than the pages that a smaller machine would have to hold.
        peak_bytes: Of the control group; None for the other methods.
        num_oom_kills: Of the control group's counter; None for the other methods.
    """

    limit_bytes: int
    method: CapMethod
    exact: bool
    peak_bytes: int | None
    num_oom_kills: int | None
