"""Jobs on a cluster of hosts with a token: a folder is sent along, and whatever ends the script ends its actors (A).

Needs root and what `cluster/local/hosts.sh` needs.
"""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local" / "hosts.sh"
ADDRESS = "http://127.0.0.1:8265"
OWN = {
    "RAYFEED_HOSTS_FOLDER": "/var/tmp/rayfeed-jobs",  # noqa: S108 - removed by what makes it
    "RAYFEED_HOSTS_NAME": "rfjobs",
    "RAYFEED_HOSTS_NETWORK": "10.80.0",
    "RAYFEED_HOSTS_DASHBOARD": "true",
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the namespaces that stand for hosts"),
]

AUGMENT = """
import rayfeed

class Images(rayfeed.Sequence):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return rayfeed.rng().random((8, 4), "float32"), rayfeed.rng().random((8, 1), "float32")
"""

TRAIN = """
import json
import keras
import rayfeed
from augment import Images

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = rayfeed.fit_generator(model, Images(), epochs=2, workers=3, use_multiprocessing=True, verbose=0, seed=1)
print("FOUND", json.dumps({"loss": history.history["loss"], "producers": history.feed_stats.num_producers}))
"""

ENDLESS = """
import rayfeed
from augment import Images

with rayfeed.Feed(Images(), workers=3, use_multiprocessing=True) as feed:
    for number, batch in enumerate(feed.take(10**9)):
        if number == 100:
            print("UNDER WAY", flush=True)
"""


def run(*command, seconds=120, **environment):
    return subprocess.run(  # noqa: S603 - this repository's script, and what it runs on its hosts
        [*map(str, command)],
        env=os.environ | OWN | environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def job(*words, seconds=120):
    """Ray's command for jobs, on the head."""
    return run(SCRIPT, "exec", "0", "ray", "job", words[0], "--address", ADDRESS, *words[1:], seconds=seconds)


@pytest.fixture(scope="module")
def folder():
    """The user's own. Ray unpacks it in /tmp, of which each host has its own."""
    if "Operation not permitted" in run("unshare", "--net", "true").stderr:
        pytest.skip("this machine's root may not make network namespaces")
    done = run(SCRIPT, "up", "3")
    assert done.returncode == 0, done.stderr
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for name, text in (("augment", AUGMENT), ("train", TRAIN), ("endless", ENDLESS)):
            Path(folder, f"{name}.py").write_text(text)
        yield folder
        run(SCRIPT, "down")
    assert not Path(OWN["RAYFEED_HOSTS_FOLDER"]).exists()


def processes(words):
    """Processes of any host whose command line has this."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if words in line:
            found.append(int(path.parent.name))
    return found


def producers():
    return processes("ray::Producer") + processes("ray::rayfeed.Producer")


def test_a_folder_is_sent_along_and_the_training_runs_over_the_hosts(folder):
    done = job("submit", "--working-dir", folder, "--", "python", "train.py")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    found = json.loads(line.removeprefix("FOUND"))
    assert len(found["loss"]) == 2
    assert found["producers"] == 3
    assert "succeeded" in done.stdout
    wait_until(lambda: not producers(), lambda: f"{producers()} are left")


def test_nobody_submits_without_the_token(folder):
    command = f"RAY_AUTH_TOKEN={'0' * 64} ray job submit --address {ADDRESS} -- python -c pass"
    done = run(SCRIPT, "exec", "0", "bash", "-c", command)
    assert done.returncode != 0
    assert "InvalidAuthToken" in done.stdout + done.stderr


def submit_endless(folder, name):
    done = job("submit", "--submission-id", name, "--no-wait", "--working-dir", folder, "--", "python", "endless.py")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: "UNDER WAY" in job("logs", name).stdout, "the job does not read", seconds=60)
    wait_until(lambda: len(producers()) == 3, lambda: f"{producers()} are there, and not three")


def test_a_job_that_is_stopped_leaves_no_producer(folder):
    submit_endless(folder, "stopped")
    assert job("stop", "stopped").returncode == 0
    wait_until(lambda: not producers(), lambda: f"{producers()} are left", seconds=30)


def test_a_script_that_is_killed_leaves_no_producer(folder):
    submit_endless(folder, "killed")
    for pid in processes("python endless.py"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not producers(), lambda: f"{producers()} are left", seconds=30)
