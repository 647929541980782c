"""The spot watcher: what it makes of either cloud's metadata service, and that Ray drains the node it is told to."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.cluster.manifests import BIN, CLUSTER, run
from tests.conftest import assert_runs

SPEC = spec_from_file_location("spot_watch", CLUSTER / "vm" / "spot_watch.py")
spot_watch = module_from_spec(SPEC)
SPEC.loader.exec_module(spot_watch)

TOKEN = "session-token"  # noqa: S105 - of the fake service


class Metadata(BaseHTTPRequestHandler):
    """Both clouds' metadata service; refuses what they refuse."""

    def do_PUT(self):
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.reply(200 if known else 400, TOKEN)

    def do_GET(self):
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
                self.reply(401, "")
                return
            answers = self.server.actions
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            answers = self.server.preempted
        else:
            self.reply(403, "")
            return
        self.reply(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def reply(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        """Nothing: a test's failure shows what came of the answers."""


@pytest.fixture
def metadata():
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.actions = [(404, "")]
        server.preempted = [(200, "FALSE")]
        server.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def action(seconds):
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    return 200, json.dumps({"action": "terminate", "time": due.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_without_a_notice_there_is_none(metadata):
    assert spot_watch.aws_notice(metadata.base) is None
    assert spot_watch.gcp_notice(metadata.base) is None


def test_aws_says_when_the_machine_goes(metadata):
    metadata.actions = [action(120)]
    assert 117 <= spot_watch.aws_notice(metadata.base) <= 120


def test_a_notice_whose_time_is_over_gives_no_seconds(metadata):
    metadata.actions = [action(-5)]
    assert spot_watch.aws_notice(metadata.base) == 0


def test_google_gives_half_a_minute(metadata):
    metadata.preempted = [(200, "TRUE")]
    assert spot_watch.gcp_notice(metadata.base) == 30


def test_it_asks_until_there_is_a_notice_whatever_the_service_answers_before(metadata, caplog):
    metadata.actions = [(404, ""), (500, ""), (200, "{}"), (200, "nonsense"), action(100), (404, "")]
    pauses = []
    with caplog.at_level(logging.WARNING):
        seconds = spot_watch.wait_for_notice(lambda: spot_watch.aws_notice(metadata.base), sleep=pauses.append)
    assert 97 <= seconds <= 100
    assert pauses == [spot_watch.POLL_S] * 4
    assert len(caplog.messages) == 3
    assert all("did not answer as documented, asking again in 2 s" in message for message in caplog.messages)


def test_a_service_that_is_not_there_is_asked_again(metadata, caplog):
    bases = ["http://127.0.0.1:1", metadata.base]
    metadata.preempted = [(200, "TRUE")]
    assert spot_watch.wait_for_notice(lambda: spot_watch.gcp_notice(bases.pop(0)), sleep=lambda _: None) == 30
    assert "Connection refused" in caplog.text


@pytest.fixture
def ray_command(tmp_path, monkeypatch):
    """A `ray` first on the path, that a test writes; what it writes to `said` in the folder can be read."""

    def write(text):
        script = tmp_path / "ray"
        script.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path

    return write


def test_a_notice_becomes_a_drain_with_the_time_that_is_left(ray_command):
    folder = ray_command('printf "%s\\n" "$@" > said')
    assert spot_watch.drain(97, clock=lambda: 0.0)
    assert (folder / "said").read_text().splitlines() == [
        "drain-node",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=the cloud takes this spot machine back",
        "--deadline-remaining-seconds=97",
    ]


def test_a_drain_that_fails_is_tried_again_with_less_time(ray_command):
    folder = ray_command('echo "$4" >> said; test "$(wc -l < said)" = 3')
    now = [0.0]
    assert spot_watch.drain(60, clock=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    said = (folder / "said").read_text().split()
    assert [int(line.rpartition("=")[2]) for line in said] == [60, 58, 56]


def test_it_gives_up_when_the_machine_is_due(ray_command):
    ray_command("exit 1")
    now = [0.0]
    assert not spot_watch.drain(5, clock=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    assert now[0] <= 5


def test_a_cloud_it_does_not_know_is_refused():
    status, output = run(sys.executable, CLUSTER / "vm" / "spot_watch.py", "azure")
    assert status == 2
    assert output == "usage: spot_watch.py aws|gcp, got ['azure']\n"


# Two nodes on one machine: which of them is drained is said to `ray`, since a machine of its own has only one.
DRAIN = """
import os, pathlib, sys, time
import ray
from ray._private.state import state
from ray.cluster_utils import Cluster
sys.path.insert(0, "cluster/vm")
import spot_watch

class Busy:
    def ready(self):
        pass

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, logging_level="ERROR")
        busy = ray.remote(num_cpus=1)(Busy).remote()  # a drained node that has nothing to do goes at once
        ray.get(busy.ready.remote())
        os.environ["RAY_ADDRESS"] = cluster.address
        shim = folder / "ray"
        shim.write_text(f'#!/bin/sh\\nexec {sys.argv[2]} "$@" --node-id={node.node_id}\\n')
        shim.chmod(0o755)
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        assert state.get_draining_nodes() == {}
        before = time.time()
        assert spot_watch.drain(90)
        draining = state.get_draining_nodes()
        assert list(draining) == [node.node_id], draining
        assert before + 60 < draining[node.node_id] / 1000 <= time.time() + 90
        cluster.remove_node(node, allow_graceful=False)  # gracefully it would use up its time to drain
    finally:
        ray.shutdown()
        cluster.shutdown()
"""


@pytest.mark.slow
def test_ray_drains_the_node_until_the_machine_is_due(tmp_path):
    assert_runs(DRAIN, tmp_path, BIN / "ray", RAY_ADDRESS=None)
