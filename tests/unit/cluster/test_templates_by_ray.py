"""Ray's own code reads the files that start a cluster: its validation, and its set-up for AWS."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

from harness.cluster.templates import _AZURE_SDK
from tests.unit.cluster.template_texts import RAY, config_of


@pytest.mark.parametrize("on", RAY)
@pytest.mark.parametrize("spot", [False, True])
def test_rays_own_validation_accepts_it(on, spot):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = config_of(on, spot=spot)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"].keys() == config["available_node_types"].keys()
    assert prepared["worker_setup_commands"] == config["setup_commands"]  # Ray's defaults left nothing behind
    broken = config | {"available_node_types": {"head": {"resources": {"CPU": "two"}, "node_config": {}}}}
    with pytest.raises(Exception, match="'two' is not of type 'integer'"):
        validate_config(prepare_config(broken))


def test_azures_packages_are_those_of_rays_defaults():
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    defaults = yaml.safe_load((Path(ray.__file__).parent / "autoscaler" / "azure" / "defaults.yaml").read_text())
    assert defaults["head_setup_commands"] == [f"pip install -U {_AZURE_SDK}"]


@pytest.fixture
def rays_aws(monkeypatch):
    """Ray's own set-up for AWS, without AWS's packages; asking AWS for anything but launch templates fails."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    module = "ray.autoscaler._private.aws"
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("boto3", "boto3.exceptions", "boto3.resources", "boto3.resources.base", "botocore", "botocore.client"):
        monkeypatch.setitem(sys.modules, name, MagicMock(__version__="1.44.5"))
    monkeypatch.setitem(sys.modules, "botocore.config", MagicMock())
    config = importlib.import_module(f"{module}.config")
    yield config
    for name in [name for name in sys.modules if name.startswith(module)]:
        del sys.modules[name]


def test_ray_makes_no_security_group_of_its_own(rays_aws, monkeypatch):
    def resource(name, config):
        raise AssertionError(f"Ray asked AWS for {name}")

    def describe(*, LaunchTemplateName, Versions):
        data = {"ImageId": f"image of {LaunchTemplateName}", "SecurityGroupIds": ["the closed group"]}
        return {"LaunchTemplateVersions": [{"LaunchTemplateData": data}]}

    monkeypatch.setattr(rays_aws, "_resource", resource)
    monkeypatch.setattr(rays_aws, "_client", lambda name, config: MagicMock(describe_launch_template_versions=describe))
    merged = rays_aws._configure_security_group(rays_aws._configure_from_launch_template(config_of("aws")))
    nodes = [each["node_config"] for each in merged["available_node_types"].values()]
    assert [each["SecurityGroupIds"] for each in nodes] == [["the closed group"]] * 4
    images = [each["ImageId"].removeprefix("image of bert-cost-harness-") for each in nodes]
    assert images == ["x86-64", "gpu", "arm64", "x86-64"]


def test_without_the_launch_template_ray_stops_before_it_makes_anything(rays_aws, monkeypatch):
    describe = MagicMock(side_effect=RuntimeError("InvalidLaunchTemplateName.NotFoundException"))
    monkeypatch.setattr(rays_aws, "_resource", MagicMock(side_effect=AssertionError))
    monkeypatch.setattr(rays_aws, "_client", lambda name, config: MagicMock(describe_launch_template_versions=describe))
    with pytest.raises(RuntimeError, match="NotFound"):
        rays_aws.bootstrap_aws(config_of("aws"))
