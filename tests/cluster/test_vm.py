"""The files for Ray's cluster launcher: accepted by Ray's own validation, and none of its unsafe defaults is left."""

import copy
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import ray
from ray.autoscaler._private import commands
from ray.autoscaler._private.autoscaler import StandardAutoscaler
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS
from tests.cluster.manifests import CLUSTER, load, pinned

each = pytest.mark.parametrize("file", ["vm/aws.yaml", "vm/gcp.yaml"])

WAIT = "timeout 600 bash -c 'until nvidia-smi; do sleep 5; done'"

CALLS = {
    "instances.filter": "ec2:DescribeInstances",
    "create_instances": "ec2:RunInstances",
    "create_tags": "ec2:CreateTags",
    "terminate_instances": "ec2:TerminateInstances",
    "start_instances": "",  # of stopped machines, which are not kept
    "stop_instances": "",
    "describe_images": "",  # for CloudWatch, of which the file says nothing
}
"""What Ray's provider for AWS calls, and the right that each call needs."""


def validate(config):
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def starts(config):
    """The two commands that start Ray, the head's first."""
    return [
        next(command for command in config[key] if "ray start" in command)
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
    ]


@each
def test_ray_accepts_the_file_and_fills_nothing_of_its_own_into_what_it_runs(file):
    config = load(file)
    prepared = validate(config)
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[key] == [], f"{key}: the image has everything"
    assert prepared["head_start_ray_commands"] == config["head_start_ray_commands"]
    assert prepared["worker_start_ray_commands"] == config["worker_start_ray_commands"]
    assert "nightly" not in str(prepared)
    assert "3.0.0.dev0" not in str(prepared)


@each
def test_without_setup_commands_ray_would_install_a_nightly_build(file):
    """Why the file sets them; the day this fails the line may go."""
    config = load(file)
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        del config[key]
    assert "3.0.0.dev0" in str(prepare_config(config)["setup_commands"])


@each
def test_the_head_waits_for_its_driver_before_ray_looks_for_it_and_producers_wait_for_nothing(file):
    """Ray's launcher asks once whether nvidia-smi works, when it starts the container."""
    config = validate(load(file))
    assert config["initialization_commands"] == [WAIT]
    assert config["available_node_types"]["producer"]["initialization_commands"] == []
    assert "initialization_commands" not in config["available_node_types"]["trainer"], "Ray would take no notice"

    scaled = AutoscalingConfig(config, skip_content_hash=True)
    assert scaled.get_initialization_commands("producer") == []
    provider = SimpleNamespace(node_tags=lambda _: {TAG_RAY_USER_NODE_TYPE: "producer"})
    scaler = SimpleNamespace(
        config=config, provider=provider, available_node_types=config["available_node_types"]
    )  # what the older autoscaler looks at
    assert StandardAutoscaler._get_node_type_specific_fields(scaler, "i-1", "initialization_commands") == []


def test_ray_up_takes_the_heads_initialization_commands_from_the_whole_file_alone():
    """Why they stand there; the day this fails they may move to the head's type."""
    assert 'initialization_commands=config["initialization_commands"],' in inspect.getsource(
        commands.get_or_create_head_node
    )


@each
@pytest.mark.parametrize(
    "breakage",
    [
        lambda config: config.update(max_worker=3),
        lambda config: config["available_node_types"]["producer"].update(spot=True),
        lambda config: config["available_node_types"]["producer"].update(min_workers=99),
        lambda config: config["available_node_types"]["producer"]["resources"].update(CPU=0.5),
        lambda config: config.update(head_node_type="gpu"),
    ],
    ids=["misspelt", "unknown key of a node type", "more machines than allowed", "half a CPU", "no such head"],
)
def test_a_broken_file_is_refused(file, breakage):
    config = load(file)
    breakage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(config)


@each
def test_the_dashboard_listens_on_the_head_alone(file):
    head, worker = starts(load(file))
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in head + worker  # noqa: S104 - that it is not there


@each
def test_every_command_that_reaches_ray_has_the_token_on(file):
    config = load(file)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert command == "ray stop" or "RAY_AUTH_MODE=token" in command
    assert config["file_mounts"] == {"/home/ray/.ray": "~/.rayfeed/auth"}


@each
def test_freed_objects_go_as_soon_as_in_a_local_ray(file):
    for command in starts(load(file)):
        assert f"RAY_free_objects_period_milliseconds={FREE_OBJECTS_PERIOD_MS} " in command


@each
def test_what_rays_launcher_sets_for_its_commands_reaches_no_process_of_ray(file):
    """It exports OMP_NUM_THREADS=1 and PYTHONWARNINGS=ignore: one thread for all, and no warning of rayfeed's."""
    for command in starts(load(file)):
        before, found, _ = command.partition("unset OMP_NUM_THREADS PYTHONWARNINGS; ")
        assert found
        assert "ray start" not in before


@each
def test_machines_are_ended_and_not_kept(file):
    assert load(file)["provider"]["cache_stopped_nodes"] is False


@each
def test_no_machine_has_rays_own_image_or_network(file):
    for name, kind in load(file)["available_node_types"].items():
        machine = kind["node_config"]
        if file == "vm/aws.yaml":
            assert machine["ImageId"] == "${RAYFEED_AMI}", name
            assert machine["SecurityGroupIds"] == ["${RAYFEED_SECURITY_GROUP}"], name
            assert machine["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}, name
            assert all(disk["Ebs"]["Encrypted"] for disk in machine["BlockDeviceMappings"]), name
        else:
            (interface,) = machine["networkInterfaces"]
            assert interface["subnetwork"].endswith("/subnetworks/rayfeed"), name
            assert machine["disks"][0]["initializeParams"]["sourceImage"] == "${RAYFEED_BOOT_IMAGE}", name


def test_on_aws_the_head_alone_has_a_profile_and_that_is_not_rays():
    """Without one Ray's launcher makes a role with all rights over EC2 and S3."""
    types = load("vm/aws.yaml")["available_node_types"]
    profiles = {name: kind["node_config"].get("IamInstanceProfile") for name, kind in types.items()}
    assert profiles == {"trainer": {"Name": "${RAYFEED_HEAD_PROFILE}"}, "producer": None}


def policy():
    return json.loads((CLUSTER / "vm" / "aws_head_policy.json").read_text())["Statement"]


def actions(statement):
    return [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]


def test_on_aws_the_head_may_do_what_rays_provider_calls_and_no_more():
    provider = Path(ray.__file__).with_name("autoscaler") / "_private" / "aws" / "node_provider.py"
    called = re.findall(r"self\.ec2\w*\.(?:meta\.client\.)?([a-z_.]+)", provider.read_text())
    assert set(called) == set(CALLS)
    assert {action for statement in policy() for action in actions(statement)} == set(CALLS.values()) - {""}
    assert {statement["Effect"] for statement in policy()} == {"Allow"}


def test_on_aws_the_head_ends_and_tags_machines_of_its_own_cluster_alone():
    config = load("vm/aws.yaml")
    region, name = config["provider"]["region"], config["cluster_name"]
    ours = {"StringEquals": {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": name}}
    new = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    for statement in policy():
        condition = statement.get("Condition")
        if "ec2:RunInstances" in actions(statement):
            assert condition == {"StringEquals": {"aws:RequestedRegion": region}}
        elif "ec2:DescribeInstances" not in actions(statement):  # which AWS cannot limit
            assert statement["Resource"] == f"arn:aws:ec2:{region}:*:instance/*"
            assert condition == ours or (condition == new and actions(statement) == ["ec2:CreateTags"])


def test_the_readme_says_what_the_head_may_do():
    text = (CLUSTER / "README.md").read_text()
    for action in (*CALLS.values(), "iam:PassRole"):
        assert f"`{action}`" in text or not action
    assert "file://cluster/vm/aws_head_policy.json" in text
    assert "a project for the cluster alone" in text


def test_the_readmes_commands_fill_in_what_the_file_for_aws_asks_for():
    names = set(re.findall(r"\$\{(\w+)\}", (CLUSTER / "vm" / "aws.yaml").read_text()))
    text = (CLUSTER / "README.md").read_text()
    (filled,) = re.findall(r"^envsubst '(.*)' < cluster/vm/aws.yaml", text, re.MULTILINE)
    (exported,) = re.findall(r"^export (RAYFEED_IMAGE=.*)$", text, re.MULTILINE)
    assert set(filled.split()) == {f"${name}" for name in names}
    assert {word.partition("=")[0] for word in exported.split()} == names


@each
def test_the_trainer_has_the_gpu_and_producers_are_spot_machines_that_watch_for_their_end(file):
    config = load(file)
    trainer, producer = config["available_node_types"]["trainer"], config["available_node_types"]["producer"]
    assert config["head_node_type"] == "trainer"
    assert trainer["resources"]["GPU"] == 1
    assert "GPU" not in producer["resources"]
    assert trainer["labels"] == {"rayfeed.io/role": "trainer"}
    assert producer["labels"] == {"rayfeed.io/role": "producer"}
    cloud = config["provider"]["type"]
    if cloud == "aws":
        assert producer["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert "InstanceMarketOptions" not in trainer["node_config"]
    else:
        assert producer["node_config"]["scheduling"] == [{"preemptible": True}]
        assert trainer["node_config"]["scheduling"] == [{"onHostMaintenance": "TERMINATE"}]
    assert f"/home/ray/spot_watch.py {cloud} " in config["worker_start_ray_commands"][-1]
    assert not any("spot_watch" in command for command in config["head_start_ray_commands"])


@each
def test_images_are_of_the_ray_that_is_tested(file):
    docker = load(file)["docker"]
    assert docker["head_image"] == f"${{RAYFEED_IMAGE}}:{pinned('ray')}-gpu"
    assert docker["worker_image"] == f"${{RAYFEED_IMAGE}}:{pinned('ray')}-cpu"


@each
def test_what_has_to_be_filled_in_is_explained(file):
    text = (CLUSTER / file).read_text()
    readme = (CLUSTER / "README.md").read_text()
    names = set(re.findall(r"\$\{(\w+)\}", text))
    assert names
    assert [name for name in sorted(names) if name not in readme] == []
