"""The Slurm job: what it asks Slurm for, and that it starts, uses and ends a Ray cluster of its own.

Slurm itself is not here: a stand-in for `srun` runs every step on this machine. Not shown, therefore: that Slurm grants
what is asked for, and that its signals reach the steps.
"""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
from ray._private.utils import validate_socket_filepath

from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS
from tests.cluster.manifests import BIN, CLUSTER, ROOT

SBATCH = CLUSTER / "slurm" / "rayfeed.sbatch"

JOB_S = 100
"""How long the job may take here; some ten seconds where the machine does nothing else."""

SOCKET = "session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
"""The longest socket that Ray makes below its folder; the last number is the largest that Linux gives a process."""

LAST_JOB = 2**32 - 1
"""No number of a job is larger: Slurm's have 32 bits."""


def asked():
    """What each part of the job asks for."""
    lines = re.findall(r"^#SBATCH (.*)$", SBATCH.read_text(), re.MULTILINE)
    assert lines.count("hetjob") == 1
    border = lines.index("hetjob")
    return [set(" ".join(part).split()) for part in (lines[:border], lines[border + 1 :])]


def files_of(job):
    """The folder of a job's files on each node."""
    (files,) = re.findall(r'^readonly FILES="(.*)\$SLURM_JOB_ID"$', SBATCH.read_text(), re.MULTILINE)
    return f"{files}{job}"


def test_it_has_a_token_of_its_own_and_no_dashboard():
    text = SBATCH.read_text()
    assert "export RAY_AUTH_TOKEN RAY_AUTH_MODE=token\n" in text
    assert "secrets.token_hex(32)" in text
    assert text.index("RAY_AUTH_MODE=token") < text.index("ray start")
    assert "--include-dashboard=false" in text
    assert f"export RAY_free_objects_period_milliseconds={FREE_OBJECTS_PERIOD_MS}\n" in text
    assert "set -- examples/digits.py\n" in text


def test_both_parts_have_their_nodes_to_themselves_with_all_their_memory():
    gpu, cpus = asked()
    assert {"--exclusive", "--mem=0"} <= gpu & cpus
    assert "--gpus-per-node=1" in gpu
    assert not any("gpu" in word for word in cpus)


def test_rays_sockets_have_room_in_their_paths_whatever_the_jobs_number():
    assert re.findall(r'--temp-dir="(\S+)"', SBATCH.read_text()) == ["$FILES/ray"] * 2
    validate_socket_filepath(f"{files_of(LAST_JOB)}/ray/{SOCKET}")


# A step is run here, in place of the nodes of its part: the first node's and one other's.
SRUN = """#!/bin/sh
echo "$*" >> "$FOLDER/steps"
shift
exec "$@"
"""

SCRIPT = """
import json, os, pathlib, stat, sys
import ray

ray.init(logging_level="ERROR")
folder = pathlib.Path(ray._private.worker.global_worker.node.get_temp_dir_path())
found = {
    "roles": sorted(node["Labels"]["rayfeed.io/role"] for node in ray.nodes() if node["Alive"]),
    "folder": str(folder),
    "mode": stat.filemode(folder.parent.stat().st_mode),
    "arguments": sys.argv[1:],
    "address": os.environ["RAY_ADDRESS"],
    "runs tasks": ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid(),
}
pathlib.Path(os.environ["FOLDER"], "found").write_text(json.dumps(found))
sys.exit(3)
"""


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def run_job(arguments, environment):
    """Run a job to its end, or end it: its exit status and all it printed."""
    with subprocess.Popen(  # noqa: S603 - this repository's script
        ["/bin/bash", *map(str, arguments)], env=environment, stdout=PIPE, stderr=STDOUT, text=True, cwd=ROOT
    ) as process:
        try:
            output, _ = process.communicate(timeout=JOB_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends its steps
            output, _ = process.communicate()
    return process.returncode, output


@pytest.mark.slow
def test_it_starts_a_ray_in_files_of_its_own_runs_the_script_there_and_leaves_nothing(tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "script.py").write_text(SCRIPT)
    job = tmp_path / "job"
    job.write_text(SBATCH.read_text().replace("readonly PORT=6379\n", f"readonly PORT={free_port()}\n"))
    (tmp_path / "ray").touch()  # nobody can make a folder of that name, which is Ray's own choice
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    environment |= {
        "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}",
        "FOLDER": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES_HET_GROUP_1": "1",
    }
    status, output = run_job([job, tmp_path / "script.py", "--epochs", "2"], environment)
    assert status == 3, output
    files = files_of(os.getpid())
    found = json.loads((tmp_path / "found").read_text())
    address = found.pop("address")
    assert found == {
        "roles": ["producer", "trainer"],
        "folder": f"{files}/ray",
        "mode": "drwx------",
        "arguments": ["--epochs", "2"],
        "runs tasks": True,
    }
    steps = (tmp_path / "steps").read_text().splitlines()
    assert steps[0] == f"--het-group=0,1 install -d -m 700 {files}"
    assert [step.split()[:4] for step in steps[1:3]] == [
        ["--het-group=0", "ray", "start", "--head"],
        ["--het-group=1", "ray", "start", f"--address={address}"],
    ]
    assert steps[3:] == [f"--het-group=0,1 rm -rf {files}"]
    assert not Path(files).exists()
