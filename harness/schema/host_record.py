"""The parts of a record that describe the computer, its load, energy and memory cap during the run."""

from __future__ import annotations

from typing import Literal

from harness.schema.ranges import Amount, Index, PositiveTally, Seconds, SignedSeconds, Tally, Temperature
from harness.schema.settings import Many, Settings

# Only CPUs with one of these flags accelerate bf16. oneDNN's own check is not used, because it accepts every AVX512
# CPU, where bf16 autocast ran more than 20 times slower than fp32 without these flags.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})

CapMethod = Literal["control_group_v1", "control_group_v2", "rlimit_data", "cuda_fraction"]


class Cpu(Settings):
    """The CPU, as far as this process may use it.

    Attributes:
        flags: Instruction set flags that affect the speed of matrix products, in the order of the list in
            machine/describe.py.
        num_logical: Logical CPUs of the machine.
        num_physical: Physical cores; None when the system does not report them.
        num_usable: Logical CPUs that CPU affinity and the control group's quota leave to this process.
    """

    model: str
    flags: Many[str]
    num_logical: PositiveTally
    num_physical: PositiveTally | None
    num_usable: PositiveTally


class Gpu(Settings):
    """One GPU as NVML describes it; a field is None when NVML gives no answer.

    Attributes:
        memory_bytes: Total memory in bytes.
        compute_capability: Major and minor version, e.g. (8, 6).
        driver: Version of the NVIDIA driver.
        cuda_driver: Newest CUDA version that the driver supports, e.g. `13.0`.
        power_limit_watts: Enforced power limit in watts.
        max_sm_clock_mhz: Maximum clock of the multiprocessors in MHz.
        max_memory_clock_mhz: Maximum memory clock in MHz.
        mig: Whether MIG is enabled.
        ecc: Whether ECC is enabled.
        persistence: Whether persistence mode is enabled.
    """

    name: str
    memory_bytes: PositiveTally | None
    compute_capability: tuple[Index, Index] | None
    driver: str | None
    cuda_driver: str | None
    power_limit_watts: Amount | None
    max_sm_clock_mhz: Tally | None
    max_memory_clock_mhz: Tally | None
    mig: bool | None
    ecc: bool | None
    persistence: bool | None


class GpuLink(Settings):
    """The connection between two GPUs; a field is None when NVML gives no answer.

    Attributes:
        first: Index of one GPU among `Machine.gpus`.
        second: Index of the other GPU, greater than `first`.
        topology: The connection's name in `nvidia-smi topo -m`: PIX (one PCIe switch), PXB (several switches), PHB (a
            host bridge), NODE (within a NUMA node), SYS (between NUMA nodes).
        nvlink: Whether the two GPUs communicate over NVLink, directly or through a switch.
    """

    first: Index
    second: Index
    topology: str | None
    nvlink: bool | None


class Machine(Settings):
    """A computer's type and software, without anything that identifies the individual computer.

    Attributes:
        id: Folder name made of CPU model and flags, cores, memory and GPUs; equal on two hosts of one type.
        host: Salted hash of the operating system's machine id, which distinguishes hosts of one type; None when there
            is no machine id.
        system: Operating system, e.g. `Linux`.
        kernel: Release of the kernel.
        memory_bytes: Main memory in bytes.
        memory_limit_bytes: The control group's memory limit in bytes; None unless it is below `memory_bytes`.
        swap_bytes: Swap space in bytes.
        gpus: The GPUs that CUDA_VISIBLE_DEVICES leaves visible.
        gpu_note: Why `gpus` is empty, or what limits the listed GPUs; None if neither applies.
        cloud_vendor: Vendor that the firmware names, if it is a known cloud; None otherwise.
        cloud_product: Product that the firmware names (on EC2 the instance type); None outside the known clouds.
        python: Version of Python.
        allocator: The C memory allocator, e.g. `glibc 2.36`.
        gpu_links: The connection of each pair of GPUs; empty in records of schema version 1.
        environment: Environment variables that can move a figure (schema/variables.py), scrubbed, as the parent had them;
            None in older records.
    """

    id: str
    host: str | None
    system: str
    kernel: str
    cpu: Cpu
    memory_bytes: PositiveTally
    memory_limit_bytes: Tally | None
    swap_bytes: Tally
    gpus: Many[Gpu]
    gpu_note: str | None
    cloud_vendor: str | None
    cloud_product: str | None
    python: str
    allocator: str
    gpu_links: Many[GpuLink] = ()
    environment: dict[str, str] | None = None


class StatedInstance(Settings):
    """The instance type and region that the user stated; the price is looked up when the record is read."""

    instance: str
    region: str | None


class DetectedInstance(Settings):
    """The instance that the cloud's metadata service reported, without any account data.

    Attributes:
        region: Region of the instance; None when the service did not report a valid region.
        is_spot: Whether the cloud may take the machine back (spot, preemptible); None when the service does not say.
    """

    vendor: Literal["aws", "gcp", "azure"]
    instance: str
    region: str | None
    is_spot: bool | None


class Git(Settings):
    """The state of the harness's own git checkout.

    Attributes:
        commit: Hash of the checked-out commit.
        dirty: Whether tracked files had uncommitted changes.
    """

    commit: str
    dirty: bool


class ClusterRun(Settings):
    """Where and how a run on a cluster took place, without any address.

    Attributes:
        run: Random name of the command that planned the run; records of one command have the same.
        node: Ray's id of the node: random, made anew whenever Ray starts there.
        driver_host: `Machine.host` of the computer that planned the run.
        code_sha256: SHA-256 of the harness's code, which that computer sent to the node.
        attempt: 1 for the cell's first attempt, 2 after a first node was lost, and so on.
    """

    run: str
    node: str
    driver_host: str | None
    code_sha256: str
    attempt: PositiveTally


class MemoryUser(Settings):
    """Another process that occupied memory when the cell started.

    Attributes:
        name: Name of the executable.
        num_bytes: Occupied memory in bytes.
        gpu: Index of the GPU whose memory the process occupied; None for main memory.
    """

    name: str
    num_bytes: Tally
    gpu: Index | None


class Load(Settings):
    """The machine's load while the cell ran; a field is None when the system does not report it.

    Attributes:
        available_memory_bytes: Available main memory in bytes before the cell started.
        system_busy_s: CPU seconds of all processes during the cell.
        cell_s: CPU seconds of the cell's own processes.
        parent_s: CPU seconds of the harness's parent process.
        steal_s: CPU seconds taken by the hypervisor.
        swap_used_bytes: Used swap in bytes before the cell started.
        holders: The other processes that occupied the most memory before the cell started, largest first.
        swapped_bytes: Bytes that all processes read from and wrote to swap.
        major_faults: Page faults of all processes that waited for a disk.
        quota_periods: Scheduling periods in which the harness's control group ran; None without a CPU quota.
        throttled_periods: Periods of `quota_periods` in which the CPU quota was used up; None without a CPU quota.
        thermal_throttles: How often the usable cores were slowed down because of their temperature.
        clock_mhz: Mean clock of the usable cores in MHz, one sample every 5 s.
        waited_for_quiet_s: Seconds that the cell's start was put off until other processes used less of the CPU; None if
            the study asked for no waiting.
    """

    available_memory_bytes: Tally
    system_busy_s: SignedSeconds | None
    cell_s: SignedSeconds | None
    parent_s: SignedSeconds
    steal_s: SignedSeconds | None
    swap_used_bytes: Tally | None = None
    holders: Many[MemoryUser] | None = None
    swapped_bytes: Tally | None = None
    major_faults: Tally | None = None
    quota_periods: Tally | None = None
    throttled_periods: Tally | None = None
    thermal_throttles: Tally | None = None
    clock_mhz: Many[Amount] | None = None
    waited_for_quiet_s: Seconds | None = None


class GpuReading(Settings):
    """One NVML sample of one GPU, taken about once a second; a field is None when NVML gives no answer.

    Attributes:
        at_s: Seconds since the parent submitted the cell.
        gpu: Index among the GPUs visible to the cell.
        sm_clock_mhz: Clock of the multiprocessors in MHz.
        memory_clock_mhz: Memory clock in MHz.
        power_watts: Power draw in watts.
        temperature_celsius: Temperature in degrees Celsius.
        used_bytes: Memory used by all processes, in bytes.
        throttle_reasons: Active throttle reasons by NVML's names, e.g. `sw_power_cap`; idleness is not listed.
    """

    at_s: Seconds
    gpu: Index
    sm_clock_mhz: Tally | None
    memory_clock_mhz: Tally | None
    power_watts: Amount | None
    temperature_celsius: Temperature | None
    used_bytes: Tally | None
    throttle_reasons: Many[str] | None


class Energy(Settings):
    """Energy from submitting the cell to the end of its test evaluation, or of the cell if it ended earlier.

    The counters cover whole devices, so other processes' energy is included.

    Attributes:
        source: The instruments, e.g. `RAPL, NVML`.
        seconds: Time between the first and the last reading.
        gpu_joules: Joules of each GPU that the cell uses; empty without readable GPU counters.
        cpu_joules: Joules of each CPU package; empty without readable package counters.
        dram_joules: Joules of each package's memory; empty where memory has no separate counter.
    """

    source: str
    seconds: Seconds
    gpu_joules: Many[Amount] = ()
    cpu_joules: Many[Amount] = ()
    dram_joules: Many[Amount] = ()


class MemoryCapFacts(Settings):
    """The memory cap that the cell ran under.

    Attributes:
        limit_bytes: The cap in bytes.
        exact: Whether the method counts the same pages that a machine with this much memory would have to hold.
        peak_bytes: Peak of the control group in bytes; None with the other methods.
        num_oom_kills: OOM kills that the control group counted; None with the other methods.
    """

    limit_bytes: Tally
    method: CapMethod
    exact: bool
    peak_bytes: Tally | None
    num_oom_kills: Tally | None
