"""Drains this machine's Ray node when the cloud says that it takes the machine back.

Ray's cluster launcher watches for no such notice. Runs beside `ray start` on spot machines, on which it asks the
metadata service every `POLL_S`: AWS tells up to 120 s ahead, Google about 30 s. A notice becomes one `ray drain-node`
with that deadline: Ray places nothing more there, and rayfeed moves the node's work to other producers before the
machine goes. Without it a Sequence loses nothing either, but the node's silence has to be noticed first.

    python spot_watch.py aws | gcp

Ends with 0 once the node drains, and with 1 when Ray would not drain it until the machine was due.
"""

import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

LINK_LOCAL = "http://169.254.169.254"
"""The metadata service of either cloud; only the machine itself reaches it."""

POLL_S = 2.0
"""Between two questions: AWS advises 5 s, and Google's 30 s of notice are short. There is no event to wait for."""

REQUEST_S = 2.0
"""How long the metadata service may take; it usually needs milliseconds."""

GOOGLE_NOTICE_S = 30
"""Google says that the machine goes, not when; this is the time its documentation promises at most."""

ATTEMPT_S = 15.0
"""How long one `ray drain-node` may take: it joins the cluster, which takes some seconds."""

LOG = logging.getLogger("spot_watch")


def aws_notice(base: str = LINK_LOCAL) -> int | None:
    """Seconds until AWS takes the machine, or None where it has not said so.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html; by a session's token
    (IMDSv2), which the launcher's file requires.
    """
    token = ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    try:
        text = ask(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    due = datetime.fromisoformat(json.loads(text)["time"])
    return max(0, int((due - datetime.now(UTC)).total_seconds()))


def gcp_notice(base: str = LINK_LOCAL) -> int | None:
    """Seconds until Google takes the machine, or None where it has not said so.

    https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted
    """
    answer = ask(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GOOGLE_NOTICE_S if answer.strip() == "TRUE" else None


CLOUDS = {"aws": aws_notice, "gcp": gcp_notice}


def ask(url: str, headers: dict[str, str], *, method: str = "GET") -> str:
    """What the metadata service answers. Raises `OSError` (`urllib.error.HTTPError` for a refusal)."""
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 - http, written above
    with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:  # noqa: S310 - as above
        return answer.read().decode()


def wait_for_notice(notice: Callable[[], int | None], *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Ask until there is a notice; the seconds it gives. A service that fails is logged, and asked again."""
    while True:
        try:
            seconds = notice()
        except (OSError, ValueError, KeyError) as error:
            LOG.warning("the metadata service did not answer as documented, asking again in %g s: %s", POLL_S, error)
            seconds = None
        if seconds is not None:
            return seconds
        sleep(POLL_S)


def drain(
    seconds: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Drain this machine's node, trying again until it is due in `seconds`. Whether Ray accepted."""
    due = clock() + seconds
    while True:
        left = max(0, int(due - clock()))
        LOG.warning("this machine goes in %d s: draining its Ray node", left)
        try:
            done = subprocess.run(drain_command(left), check=False, timeout=ATTEMPT_S)  # noqa: S603 - written below
        except subprocess.TimeoutExpired:
            LOG.warning("ray drain-node did not end in %g s", ATTEMPT_S)
        else:
            if done.returncode == 0:
                return True
            LOG.warning("ray drain-node ended with %d", done.returncode)
        if clock() + POLL_S >= due:
            return False
        sleep(POLL_S)


def drain_command(seconds: int) -> list[str]:
    """The command that drains the node it runs on. Hidden and without promise; Ray 2.60 has it."""
    return [
        "ray",
        "drain-node",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=the cloud takes this spot machine back",
        f"--deadline-remaining-seconds={seconds}",
    ]


def main(arguments: list[str]) -> int:
    """Watch the cloud that the one argument names; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s spot_watch: %(message)s")
    if len(arguments) != 1 or arguments[0] not in CLOUDS:
        print(f"usage: spot_watch.py {'|'.join(CLOUDS)}, got {arguments}", file=sys.stderr)
        return 2
    return 0 if drain(wait_for_notice(CLOUDS[arguments[0]])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
