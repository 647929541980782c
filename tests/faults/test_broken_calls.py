"""Calls whose answers are lost while both ends live: no batch is lost, none comes twice, no batch is blamed (F2).

Ray itself drops the answers to some of its calls here, for all of a producer's: that it is up, and its batches.
"""

import json

import ray

import rayfeed
from tests.conftest import assert_runs, wait_until
from tests.sources import Numbered

SCRIPT = """
import json, sys, warnings
import rayfeed
from tests.sources import Numbered, batch, numbers_of
warnings.simplefilter("error")

def generate():
    info = rayfeed.get_worker_info()
    for place in range(40):
        yield batch(100 * info.id + place)

found = {}
for name, source in [("generator", generate), ("Sequence", Numbered(40))]:
    with rayfeed.Feed(source, 2, use_multiprocessing=True, max_queue_size=2) as feed:
        numbers = numbers_of(feed)
        found[name] = numbers, feed.stats().lost_producers
print(json.dumps(found))
"""


def test_answers_that_do_not_arrive_cost_nothing():
    failures = dict.fromkeys(("req_failure_prob", "resp_failure_prob", "in_flight_failure_prob"), 0)
    failures |= {"num_failures": 5, "resp_failure_prob": 25}
    setting = json.dumps({"CoreWorkerService.grpc_client.PushTask": failures})
    found = json.loads(assert_runs(SCRIPT, RAY_ADDRESS="local", RAY_testing_rpc_failure=setting).splitlines()[-1])
    numbers, num_lost = found["generator"]
    assert numbers == [100 * copy + place for place in range(40) for copy in range(2)]
    assert num_lost == 0
    assert found["Sequence"][0] == list(range(40))


def test_a_producer_that_is_watched_anew_each_time_its_connection_broke_still_hears_its_pool():
    with rayfeed.Feed(Numbered(3)) as feed:
        wait_until(feed.processes, "it does not come")
        member = feed._stream._conductor.crew._members[0]
        held = [member.actor.hold.remote() for _ in range(5)]
        assert ray.get(member.actor.open.remote(), timeout=20).pid == feed.processes()[0].pid
        _, waiting = ray.wait(held, num_returns=4, timeout=20)
        assert len(waiting) == 1, "the newest alone is not answered"
