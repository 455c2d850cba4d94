"""Description of this computer, unsupported cells, and privacy."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
from pathlib import Path

import pytest

from harness.machine.describe import describe_machine
from harness.machine.support import num_gpus_used, num_ranks, num_threads, ranks_per_node, unsupported_reason
from harness.schema.cells import BaselineConfig
from harness.schema.expansion import expand
from harness.schema.host_record import Gpu
from harness.schema.study_file import parse_study
from tests.make_nvml import ERROR_CODES, MIG_GPU, TWO_GPUS, make_nvml

GIB = 2**30
CUDA_BUILD = "2.13.0+cu130"


def config_of(device="cpu", precision="fp32", threads=None, **training):
    matrix = {"device": [device], "precision": [precision]} | ({"threads": [threads]} if threads else {})
    (cell,) = expand(parse_study({"baselines": False, "matrix": matrix, "training": training}, "s"))
    return cell.config


@pytest.fixture
def make_machine(ok_record):
    """Return a function that varies a real machine's facts."""

    def make(*, flags=(), num_usable=4, gpus=(), gpu_note=None):
        cpu = ok_record.machine.cpu.model_copy(update={"flags": flags, "num_usable": num_usable})
        return ok_record.machine.model_copy(update={"cpu": cpu, "gpus": tuple(gpus), "gpu_note": gpu_note})

    return make


def gpu(name, capability):
    known = {field: None for field in Gpu.model_fields}
    return Gpu(**known | {"name": name, "compute_capability": capability})


T4, A10G, V100 = gpu("Tesla T4", (7, 5)), gpu("NVIDIA A10G", (8, 6)), gpu("Tesla V100-SXM2-16GB", (7, 0))


@pytest.mark.parametrize(
    ("config", "machine", "reason"),
    [
        ({}, {}, None),
        ({"precision": "tf32"}, {}, "a CPU has none"),
        ({"precision": "fp16"}, {}, "bf16 is its 16-bit format"),
        ({"precision": "bf16"}, {}, "bf16 is not accelerated on this CPU"),
        ({"precision": "bf16"}, {"flags": ("avx512f", "avx512_vnni")}, "bf16 is not accelerated on this CPU"),
        ({"precision": "bf16"}, {"flags": ("avx512_bf16",)}, None),
        ({"precision": "bf16"}, {"flags": ("amx_bf16",)}, None),
        ({"precision": "bf16"}, {"flags": ("asimd", "bf16")}, None),
        ({"precision": "bf16", "allow_slow_precision": True}, {}, None),
        ({"device": "cpu-ddp4"}, {}, None),
        ({"device": "cpu-ddp5"}, {}, "5 ranks need 5 cores, 4 usable here"),
        (
            {"device": "cpu-ddp2x2"},
            {},
            "trains on 2 machines together, and this is one; no command places it on several yet",
        ),
        ({"device": "gpu"}, {"gpu_note": "NVML: no driver"}, r"no NVIDIA GPU here \(NVML: no driver\)"),
        ({"device": "gpu-ddp"}, {}, "no NVIDIA GPU here"),
        ({"device": "gpu"}, {"gpus": [T4]}, None),
        ({"device": "gpu", "precision": "fp16"}, {"gpus": [T4]}, None),
        (
            {"device": "gpu", "precision": "bf16"},
            {"gpus": [T4]},
            r"bf16 needs compute capability 8\.0, this GPU has 7\.5",
        ),
        (
            {"device": "gpu", "precision": "tf32"},
            {"gpus": [V100]},
            r"tf32 needs compute capability 8\.0, this GPU has 7\.0",
        ),
        ({"device": "gpu", "precision": "bf16"}, {"gpus": [A10G]}, None),
        ({"device": "gpu", "precision": "tf32"}, {"gpus": [A10G]}, None),
        ({"device": "gpu-ddp2"}, {"gpus": [A10G]}, "2 GPUs are asked for, 1 seen"),
        ({"device": "gpu-ddp2"}, {"gpus": [A10G, A10G]}, None),
        ({"device": "gpu-ddp", "precision": "bf16"}, {"gpus": [T4, T4]}, "needs compute capability"),
    ],
)
def test_unsupported_cells_have_a_reason(config, machine, reason, make_machine):
    found = unsupported_reason(config_of(**config), make_machine(**machine), CUDA_BUILD)
    if reason is None:
        assert found is None
    else:
        assert re.search(reason, found)


@pytest.mark.parametrize(
    ("device", "num_nodes", "gpus", "reason"),
    [
        ("cpu-ddp4x2", 2, [], None),
        ("cpu-ddp5x2", 2, [], "5 ranks need 5 cores, 4 usable here"),  # on each
        ("cpu-ddp2x3", 2, [], "give it exactly 3"),
        ("cpu-ddp2", 2, [], "give it exactly 1"),
        ("gpu-ddp2x2", 2, [A10G, A10G], None),
        ("gpu-ddp4x2", 2, [A10G, A10G], "4 GPUs are asked for, 2 seen"),
    ],
)
def test_each_of_several_nodes_must_have_the_cores_and_gpus_of_its_own_ranks(
    device, num_nodes, gpus, reason, make_machine
):
    config, machine = config_of(device=device), make_machine(gpus=gpus)
    found = unsupported_reason(config, machine, CUDA_BUILD, num_nodes=num_nodes)
    assert found is None if reason is None else reason in found


def test_ranks_are_counted_over_all_nodes_and_threads_and_gpus_on_each(make_machine):
    config, machine = config_of(device="cpu-ddp2x3"), make_machine()
    assert (num_ranks(config, machine), ranks_per_node(config, machine), num_threads(config, machine)) == (6, 2, 2)
    assert num_gpus_used(config_of(device="gpu-ddp2x3"), make_machine(gpus=[A10G] * 4)) == 2


@pytest.mark.parametrize(
    ("device", "gib", "facts", "reason"),
    [
        ("cpu", 4, {}, None),
        ("cpu", 8, {}, None),  # the whole machine's own
        ("cpu", 9, {}, r"memory_limit_gib = 9 is more than this machine has \(8\.0 GiB\)"),
        ("cpu", 3, {"memory_limit_bytes": 2 * GIB}, r"more than this machine has \(2\.0 GiB\)"),
        ("cpu", 1, {"system": "Darwin"}, "on a CPU needs Linux; Darwin has no such cap"),
        ("gpu", 14, {"system": "Windows"}, None),
        ("gpu", 16, {}, r"more than this GPU has \(15\.0 GiB\)"),
    ],
)
def test_a_memory_cap_must_be_possible_on_this_machine(device, gib, facts, reason, make_machine):
    cell = config_of(device)
    config = cell.model_copy(update={"limits": cell.limits.model_copy(update={"memory_limit_gib": gib})})
    here = make_machine(gpus=[T4.model_copy(update={"memory_bytes": 15 * GIB})])
    here = here.model_copy(update={"memory_bytes": 8 * GIB, "memory_limit_bytes": None, "system": "Linux"} | facts)
    found = unsupported_reason(config, here, CUDA_BUILD)
    assert (found is None) if reason is None else re.search(reason, found)


def test_a_cpu_build_of_torch_says_what_to_install(make_machine):
    assert "`make bench TORCH=" in unsupported_reason(config_of("gpu"), make_machine(gpus=[A10G]), "2.13.0+cpu")


def test_a_baseline_runs_anywhere(make_machine):
    baselines = expand(parse_study({}, "s"))[:3]
    assert all(isinstance(cell.config, BaselineConfig) for cell in baselines)
    assert [unsupported_reason(cell.config, make_machine()) for cell in baselines] == [None] * 3


def test_the_features_of_a_study_on_gpus_need_one(make_machine):
    (features,) = [
        cell for cell in expand(parse_study({"matrix": {"device": ["gpu"]}}, "s")) if "features" in cell.name
    ]
    assert unsupported_reason(features.config, make_machine(), "2.13.0").startswith("no NVIDIA GPU here")
    assert "is a CPU build" in unsupported_reason(features.config, make_machine(gpus=[A10G]), "2.13.0+cpu")
    assert unsupported_reason(features.config, make_machine(gpus=[A10G]), "2.13.0") is None
    assert num_gpus_used(features.config, make_machine(gpus=[A10G, A10G])) == 1


@pytest.mark.parametrize(
    ("config", "ranks", "threads"),
    [
        ({}, 1, 4),
        ({"threads": 3}, 1, 3),
        ({"device": "cpu-ddp2"}, 2, 2),
        ({"device": "cpu-ddp4", "threads": 2}, 4, 1),
        ({"device": "gpu"}, 1, 4),
        ({"device": "gpu-ddp"}, 2, 2),
    ],
)
def test_ranks_and_their_threads(config, ranks, threads, make_machine):
    here = make_machine(gpus=[A10G, A10G])
    assert (num_ranks(config_of(**config), here), num_threads(config_of(**config), here)) == (ranks, threads)


def test_the_description_identifies_neither_person_nor_computer():
    text = describe_machine().model_dump_json()
    secrets = {platform.node(), str(Path.home()), str(Path.cwd())}
    if getpass.getuser() != "root":
        secrets.add(getpass.getuser())
    for path in (
        "/etc/machine-id",
        "/sys/class/dmi/id/product_serial",
        "/sys/class/dmi/id/product_uuid",
        "/etc/hostname",
    ):
        if os.access(path, os.R_OK):
            secrets.add(Path(path).read_text(errors="replace").strip())
    # A name such as "vm" may be a part of another word.
    assert not [
        secret for secret in secrets if (secret and f'"{secret}"' in text) or (len(secret) > 4 and secret in text)
    ]


def test_a_machine_describes_itself_twice_alike():
    first, second = describe_machine(), describe_machine()
    assert (first.id, first.host, first.cpu) == (second.id, second.host, second.cpu)
    assert 1 <= first.cpu.num_usable <= first.cpu.num_logical


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_the_id_depends_on_the_type_and_not_on_the_host(tmp_path, monkeypatch):
    write(tmp_path / "etc/machine-id", "one")
    first = describe_machine(tmp_path)
    write(tmp_path / "etc/machine-id", "another")
    second = describe_machine(tmp_path)
    assert second.host != first.host
    assert second.id == first.id
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)))
    assert describe_machine(tmp_path).id != first.id


def test_a_control_groups_quota_limits_the_usable_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    write(tmp_path / "proc/self/cgroup", "0::/")
    write(tmp_path / "sys/fs/cgroup/cgroup.controllers", "cpu")
    assert describe_machine(tmp_path).cpu.num_usable == 4
    write(tmp_path / "sys/fs/cgroup/cpu.max", "150000 100000")
    assert describe_machine(tmp_path).cpu.num_usable == 1


@pytest.mark.parametrize(
    ("version", "line", "file"),
    [(2, "0::/job/7", "memory.max"), (1, "4:cpu,memory:/job/7", "memory.limit_in_bytes")],
)
def test_the_lowest_memory_limit_applies_and_changes_the_id(tmp_path, version, line, file):
    whole = describe_machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", line)
    mount = tmp_path / "sys/fs/cgroup" / ("" if version == 2 else "memory")
    if version == 2:
        write(mount / "cgroup.controllers", "memory")
    for group, limit in ((".", 2**63 - 4096), ("job", GIB), ("job/7", "max" if version == 2 else 2 * GIB)):
        write(mount / group / file, limit)
    here = describe_machine(tmp_path)
    assert here.memory_limit_bytes == GIB
    assert whole.memory_limit_bytes is None
    assert here.memory_bytes == whole.memory_bytes
    assert "-1g-" in here.id
    assert here.id != whole.id


@pytest.fixture
def with_nvml(monkeypatch):
    def install(*args, visible=None, **kwargs):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(*args, **kwargs))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return describe_machine()

    return install


def test_a_gpu_is_described_in_the_records_units(with_nvml):
    first, second = with_nvml(TWO_GPUS).gpus
    assert first == Gpu(
        name="NVIDIA A10G",
        memory_bytes=23_028 * 2**20,
        compute_capability=(8, 6),
        driver="580.95.05",
        cuda_driver="13.0",
        power_limit_watts=300.0,
        max_sm_clock_mhz=1710,
        max_memory_clock_mhz=6251,
        mig=False,
        ecc=True,
        persistence=True,
    )
    assert second.name == "NVIDIA L4"


FIELD_OF_CALL = {
    "nvmlDeviceGetMemoryInfo": "memory_bytes",
    "nvmlDeviceGetCudaComputeCapability": "compute_capability",
    "nvmlSystemGetDriverVersion": "driver",
    "nvmlSystemGetCudaDriverVersion_v2": "cuda_driver",
    "nvmlDeviceGetEnforcedPowerLimit": "power_limit_watts",
    "nvmlDeviceGetMaxClockInfo": "max_sm_clock_mhz",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetEccMode": "ecc",
    "nvmlDeviceGetPersistenceMode": "persistence",
}


@pytest.mark.parametrize("call", FIELD_OF_CALL)
def test_an_unanswered_nvml_call_is_none_without_affecting_the_rest(with_nvml, call):
    found = with_nvml(TWO_GPUS[:1], failing=[call]).gpus[0]
    assert getattr(found, FIELD_OF_CALL[call]) is None
    assert found.name == "NVIDIA A10G"
    assert sum(value is None for value in found.model_dump().values()) == (2 if "Clock" in call else 1)


@pytest.mark.parametrize("call", ["nvmlDeviceGetMigMode", "nvmlSystemGetCudaDriverVersion_v2"])
def test_an_older_nvml_package_without_a_call_gives_none(with_nvml, call):
    found = with_nvml(TWO_GPUS[:1], missing=[call]).gpus[0]
    assert getattr(found, FIELD_OF_CALL[call]) is None


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName"])
def test_without_a_driver_there_is_no_gpu_and_a_reason(with_nvml, call):
    here = with_nvml(TWO_GPUS, failing=[call])
    assert here.gpus == ()
    assert here.gpu_note == "NVML: Not Supported"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["NVIDIA L4"]),
        ("1,0", ["NVIDIA L4", "NVIDIA A10G"]),
        (" 0 , 1 ", ["NVIDIA A10G", "NVIDIA L4"]),
        ("GPU-bbbb", ["NVIDIA L4"]),
        ("GPU-bbbb-2,0", ["NVIDIA L4", "NVIDIA A10G"]),
        ("0,-1,1", ["NVIDIA A10G"]),
        ("0,7,1", ["NVIDIA A10G"]),
        ("-1", []),
        ("", []),
        ("GPU-none", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(with_nvml, visible, names):
    here = with_nvml(TWO_GPUS, visible=visible)
    assert [found.name for found in here.gpus] == names
    assert here.gpu_note == (None if names else "CUDA_VISIBLE_DEVICES hides every GPU")


def test_a_driver_without_gpus_is_noted(with_nvml):
    assert with_nvml([]).gpu_note == "NVML lists none"


def test_gpus_are_part_of_the_id(with_nvml):
    one, two = with_nvml(TWO_GPUS[:1]), with_nvml([TWO_GPUS[0], TWO_GPUS[0]])
    assert one.id.startswith("nvidia-a10g-")
    assert two.id.startswith("2x-nvidia-a10g-")
    assert one.id.rpartition("-")[2] != two.id.rpartition("-")[2]


def test_every_pair_of_gpus_has_nvmls_topology_and_nvlink(with_nvml):
    answers = {
        "nvmlDeviceGetTopologyCommonAncestor": lambda one, other: ({one["at"], other["at"]} == {0, 1} and 10) or 50
    }
    three = [TWO_GPUS[0] | {"at": place, "uuid": f"GPU-{place}"} for place in range(3)]
    nvlink = lambda one, other, kind: 0 if kind == 2 and (one["at"], other["at"]) == (0, 1) else 5  # noqa: E731
    links = with_nvml(three, **answers, nvmlDeviceGetP2PStatus=nvlink).gpu_links
    assert [(link.first, link.second, link.topology, link.nvlink) for link in links] == [
        (0, 1, "PIX", True),
        (0, 2, "SYS", False),
        (1, 2, "SYS", False),
    ]
    assert with_nvml(three[:1]).gpu_links == ()


@pytest.mark.parametrize("how", ["failing", "missing"])
def test_links_that_the_driver_does_not_report_are_none(with_nvml, how):
    (link,) = with_nvml(TWO_GPUS, **{how: ["nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus"]}).gpu_links
    assert (link.topology, link.nvlink) == (None, None)


def test_links_follow_the_order_that_cuda_visible_devices_gives(with_nvml):
    asked = []
    with_nvml(
        TWO_GPUS, visible="1,0", nvmlDeviceGetTopologyCommonAncestor=lambda one, other: asked.append((one, other)) or 20
    )
    assert asked == [(TWO_GPUS[1], TWO_GPUS[0])]


@pytest.mark.parametrize(
    ("visible", "name", "memory_mib", "note"),
    [
        (None, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4_864, "a CUDA process sees a single instance"),
        ("0", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4_864, "CUDA_VISIBLE_DEVICES=MIG-... chooses one"),
        ("MIG-eeee-5", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19_968, None),
    ],
)
def test_with_mig_the_gpu_is_the_instance_that_cuda_sees(with_nvml, visible, name, memory_mib, note):
    here = with_nvml([MIG_GPU, TWO_GPUS[0]], visible=visible)
    (instance,) = here.gpus
    assert (instance.name, instance.memory_bytes, instance.mig) == (name, memory_mib * 2**20, True)
    # Values of the board; NVML reports no power of a single instance.
    assert (instance.compute_capability, instance.ecc, instance.power_limit_watts) == ((8, 6), True, None)
    assert (note in here.gpu_note) if note else here.gpu_note is None
    assert here.gpu_links == ()
    assert "2 GPUs are asked for, 1 seen" in unsupported_reason(config_of("gpu-ddp2"), here, CUDA_BUILD)


def test_mig_without_an_instance_gives_advice(with_nvml):
    here = with_nvml([MIG_GPU | {"instances": []}])
    assert here.gpus == ()
    assert "no GPU has an instance: make one (`nvidia-smi mig -cgi PROFILE -C`), or turn MIG off" in here.gpu_note
    assert here.gpu_note in unsupported_reason(config_of("gpu"), here, CUDA_BUILD)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("nvmlInit", "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "as after an update: restart the machine"),
        ("nvmlInit", "NVML_ERROR_DRIVER_NOT_LOADED", "installed and not loaded"),
        ("nvmlInit", "NVML_ERROR_LIBRARY_NOT_FOUND", "no NVIDIA driver is installed"),
        ("nvmlDeviceGetHandleByIndex", "NVML_ERROR_GPU_IS_LOST", "fell off the bus: restart the machine"),
    ],
)
def test_a_driver_error_gives_advice(with_nvml, call, error, words):
    here = with_nvml(TWO_GPUS, failing={call: error})
    assert here.gpus == ()
    assert words in here.gpu_note
    assert here.gpu_note in unsupported_reason(config_of("gpu"), here, CUDA_BUILD)


def test_the_error_codes_match_the_installed_package():
    import pynvml

    for name, (code, text) in ERROR_CODES.items():
        assert getattr(pynvml, name) == code
        assert str(pynvml.NVMLError(code)) == text
