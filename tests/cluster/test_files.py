"""All files of `cluster/`: each is tested, none holds a secret, and the image and the scripts pass their tools."""

import inspect
import re

import pytest
from ray.autoscaler._private.docker import docker_start_cmds
from ray.scripts.scripts import start

from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS
from tests.cluster.manifests import BIN, CLUSTER, ROOT, pinned, run

TESTED_BY = {
    "README.md": "tests/cluster/test_files.py",
    "images/Dockerfile": "tests/cluster/test_files.py",
    "images/Dockerfile.dockerignore": "tests/cluster/test_files.py",
    "slurm/*": "tests/cluster/test_slurm.py",
    "local/*": "tests/nodes/test_hosts.py",
    "vm/*.yaml": "tests/cluster/test_vm.py",
    "vm/aws_head_policy.json": "tests/cluster/test_vm.py",
    "vm/spot_watch.py": "tests/cluster/test_spot_watch.py",
    "k8s/base/*": "tests/cluster/test_k8s.py",
    "k8s/overlays/*/kustomization.yaml": "tests/cluster/test_k8s.py",
}
"""Which test looks at which files; a file that matches none fails `test_every_file_has_a_test`."""

SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "an AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{36}",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Ray token": r"\b[0-9a-f]{40,}\b",
    "a value for a secret": r"(?i)(auth_token|password|secret_?key)[\"']?\s*[=:]\s*[\"']?[0-9a-z+/]{12,}",
}

DOCKERFILE = CLUSTER / "images" / "Dockerfile"
SBATCH = CLUSTER / "slurm" / "rayfeed.sbatch"


def files():
    return sorted(path for path in CLUSTER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def test_every_file_has_a_test():
    without = [
        name
        for name in (path.relative_to(CLUSTER) for path in files())
        if not any(name.match(pattern) for pattern in TESTED_BY)
    ]
    assert without == []


@pytest.mark.parametrize(("pattern", "test"), TESTED_BY.items())
def test_a_rule_that_says_who_tests_what_is_still_true(pattern, test):
    assert list(CLUSTER.glob(pattern)), f"no file is {pattern} any more"
    assert (ROOT / test).is_file()


def secrets(text):
    return [name for name, pattern in SECRETS.items() if re.search(pattern, text)]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(CLUSTER).as_posix())
def test_no_file_holds_a_secret(path):
    assert secrets(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("AKIA" + "A" * 16, "an AWS key"),
        ("export RAY_AUTH_TOKEN=" + "ab12" * 16, "a Ray token"),
        ("-----BEGIN RSA PRIVATE" + " KEY-----", "a private key"),
        ("password: hunter2hunter2", "a value for a secret"),
    ],
)
def test_a_secret_would_be_found(text, name):
    assert name in secrets(text)


def test_every_file_that_the_readme_links_to_is_there_and_every_way_is_named():
    text = (CLUSTER / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (CLUSTER / link).exists()] == []
    assert {"vm/aws.yaml", "vm/gcp.yaml", "vm/spot_watch.py", "k8s/base", "slurm/rayfeed.sbatch"} <= set(links)


def test_the_readme_says_what_the_files_do():
    text = (CLUSTER / "README.md").read_text()
    assert set(re.findall(r"free_objects_period_milliseconds=(\d+)", text)) == {str(FREE_OBJECTS_PERIOD_MS)}
    assert set(re.findall(r":(\d+\.\d+\.\d+)-[cg]pu", text)) == {pinned("ray")}


def test_a_gpu_node_without_our_image_is_told_to_install_the_tensorflow_with_cuda_that_is_tested():
    commands = re.findall(r"pip install rayfeed 'tensorflow\[and-cuda\]==(.*?)'", (CLUSTER / "README.md").read_text())
    assert commands == [pinned("tensorflow").rpartition(".")[0] + ".*"]


def test_the_readme_does_not_take_a_hop_limit_for_a_wall_around_containers():
    text = (CLUSTER / "README.md").read_text()
    (told,) = re.findall(r"^- \*\*The cloud account\.\*\* (.*?)^- ", text, re.MULTILINE | re.DOTALL)
    assert "`--net=host`), so that a hop limit of 1 does not keep it from the metadata service" in re.sub(
        r"\s+", " ", told
    )
    assert '"--net=host"' in inspect.getsource(docker_start_cmds), "as Ray's launcher starts them"


def test_hadolint_finds_nothing_in_the_dockerfile():
    assert run(BIN / "hadolint", DOCKERFILE) == (0, "")


def test_a_dockerfile_with_an_image_that_is_not_pinned_is_refused(tmp_path):
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace("ray:${RAY_VERSION}-py311-cpu", "ray:latest"))
    status, output = run(BIN / "hadolint", broken)
    assert status != 0
    assert "DL3007" in output


def test_the_image_has_the_versions_that_are_tested_and_no_root():
    text = DOCKERFILE.read_text()
    assert f"ARG RAY_VERSION={pinned('ray')}\n" in text
    assert set(re.findall(r"tensorflow(?:-cpu|\[and-cuda\])==([\d.]+)", text)) == {pinned("tensorflow")}
    assert f"rayfeed:{pinned('ray')}-cpu" in text
    assert "--constraint /tmp/rayfeed/constraints.txt" in text
    assert "pip check" in text
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000"]


def test_the_builder_gets_what_the_dockerfile_copies_and_nothing_else():
    copied = re.findall(r"^COPY --chown=ray:users (.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    lines = (CLUSTER / "images" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize(
    "path", [SBATCH, CLUSTER / "vm" / "aws.yaml", CLUSTER / "vm" / "gcp.yaml"], ids=lambda p: p.name
)
def test_ray_start_has_every_option_that_it_is_given(path):
    known = {option for parameter in start.params for option in parameter.opts}
    text = path.read_text().replace("\\\n", " ")  # the shell's continued lines; YAML's are indented
    given = [re.findall(r"--[a-z-]+", call) for call in re.findall(r"ray start (--.*(?:\n    --.*)*)", text)]
    assert len(given) == 2
    assert [option for options in given for option in options if option not in known] == []


@pytest.mark.parametrize("script", [SBATCH, CLUSTER / "local" / "hosts.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    assert run(BIN / "shellcheck", script) == (0, "")


def test_a_shell_script_with_an_unquoted_variable_is_refused(tmp_path):
    broken = tmp_path / "broken.sbatch"
    broken.write_text(SBATCH.read_text().replace('--port="$PORT"', "--port=$1"))
    status, output = run(BIN / "shellcheck", broken)
    assert status != 0
    assert "SC2086" in output
