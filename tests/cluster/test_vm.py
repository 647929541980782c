"""The files for Ray's cluster launcher: accepted by Ray's own validation, and none of its unsafe defaults is left."""

import copy
import re

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS
from tests.cluster.manifests import CLUSTER, load, pinned

FILES = ["vm/aws.yaml", "vm/gcp.yaml"]

pytestmark = pytest.mark.parametrize("file", FILES)


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


def test_ray_accepts_the_file_and_fills_nothing_of_its_own_into_what_it_runs(file):
    config = load(file)
    prepared = validate(config)
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands"):
        assert config[key] == [], f"{key}: the image has everything"
    assert prepared["head_start_ray_commands"] == config["head_start_ray_commands"]
    assert prepared["worker_start_ray_commands"] == config["worker_start_ray_commands"]
    assert "nightly" not in str(prepared)
    assert "3.0.0.dev0" not in str(prepared)


def test_without_setup_commands_ray_would_install_a_nightly_build(file):
    """Why the file sets them; the day this fails the line may go."""
    config = load(file)
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        del config[key]
    assert "3.0.0.dev0" in str(prepare_config(config)["setup_commands"])


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


def test_the_dashboard_listens_on_the_head_alone(file):
    head, worker = starts(load(file))
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in head + worker  # noqa: S104 - that it is not there


def test_every_command_that_reaches_ray_has_the_token_on(file):
    config = load(file)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert command == "ray stop" or "RAY_AUTH_MODE=token" in command
    assert config["file_mounts"] == {"/home/ray/.ray": "~/.rayfeed/auth"}


def test_freed_objects_go_as_soon_as_in_a_local_ray(file):
    for command in starts(load(file)):
        assert f"RAY_free_objects_period_milliseconds={FREE_OBJECTS_PERIOD_MS} " in command


def test_what_rays_launcher_sets_for_its_commands_reaches_no_process_of_ray(file):
    """It exports OMP_NUM_THREADS=1 and PYTHONWARNINGS=ignore: one thread for all, and no warning of rayfeed's."""
    for command in starts(load(file)):
        before, found, _ = command.partition("unset OMP_NUM_THREADS PYTHONWARNINGS; ")
        assert found
        assert "ray start" not in before


def test_machines_are_ended_and_not_kept(file):
    assert load(file)["provider"]["cache_stopped_nodes"] is False


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


def test_images_are_of_the_ray_that_is_tested(file):
    docker = load(file)["docker"]
    assert docker["head_image"] == f"${{RAYFEED_IMAGE}}:{pinned('ray')}-gpu"
    assert docker["worker_image"] == f"${{RAYFEED_IMAGE}}:{pinned('ray')}-cpu"


def test_what_has_to_be_filled_in_is_explained(file):
    text = (CLUSTER / file).read_text()
    readme = (CLUSTER / "README.md").read_text()
    names = set(re.findall(r"\$\{(\w+)\}", text))
    assert names
    assert [name for name in sorted(names) if name not in readme] == []
