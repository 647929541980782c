"""A generator's producer is killed: its position is lost, which is an error, and never a hang (contract F2)."""

import itertools
import os
import re
import signal

import pytest

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import ProducerDiedError
from rayfeed.options import StreamOptions
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.opening import open_streams, specify
from tests.conftest import producer_pids, wait_until
from tests.sources import batch, die, is_settled, number_of, numbers_of


def mortal(log, copy_that_dies, place_of_death):
    def generate():
        info = rayfeed.get_worker_info()
        log.add(info.id, os.getpid())
        for place in itertools.count():
            if (info.id, place) == (copy_that_dies, place_of_death):
                die()
            yield batch(100 * info.id + place)

    return generate


@pytest.mark.parametrize("workers", [1, 2])
def test_the_death_of_a_generators_producer_names_it_and_what_is_lost(workers, log):
    dying = workers - 1
    with rayfeed.Feed(mortal(log, dying, 5), workers, use_multiprocessing=True, max_queue_size=2) as feed:
        reader = iter(feed)
        expected = [100 * copy + place for place in range(3) for copy in range(workers)]
        assert [number_of(next(reader)) for _ in expected] == expected
        with pytest.raises(ProducerDiedError) as caught:
            numbers_of(reader)
        assert feed.stats().lost_producers == 1
    pids = dict(line.split() for line in log.lines())
    text = str(caught.value)
    assert re.match(rf"producer {dying} \(node [\d.]+, pid {pids[str(dying)]}\) died while it ran source, a gen", text)
    assert "its position in the stream is lost" in text
    assert "A Sequence in its place would go on" in text
    assert caught.value.__cause__ is not None


def test_a_generators_producer_killed_while_idle_is_an_error_too(log):
    with rayfeed.Feed(mortal(log, -1, 0), 2, use_multiprocessing=True) as feed:
        wait_until(lambda: is_settled(feed), "the queue does not fill")
        pids = dict(line.split() for line in log.lines())
        os.kill(int(pids["1"]), signal.SIGKILL)
        with pytest.raises(ProducerDiedError, match=rf"producer 1 \(node [\d.]+, pid {pids['1']}\) died while it ran"):
            numbers_of(feed)


def finite(length):
    rayfeed.get_worker_info()
    yield from (batch(place) for place in range(length))


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
def test_the_death_of_a_producer_whose_copy_has_ended_costs_nothing():
    with rayfeed.Feed(lambda: finite(3), 2, use_multiprocessing=True) as feed:
        wait_until(lambda: all(lane.closed for lane in feed._stream._state.window.lanes), "the copies do not end")
        for pid in producer_pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: feed.stats().lost_producers == 2, "the loss is not noticed")
        assert [number_of(one) for one in feed] == [0, 0, 1, 1, 2, 2]


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
@pytest.mark.parametrize("max_restarts", [0, 1])
def test_a_producer_lost_before_its_copy_began_is_replaced_or_an_error(max_restarts):
    """Streams of a trainer wait until they are wanted, such as validation; producers may die meanwhile."""
    options = StreamOptions(workers=2, use_multiprocessing=True)
    spec = specify(lambda: finite(3), name="validation_data", options=options, ships=True)
    keeper = Keeper()
    (stream,) = open_streams([spec], ProducerOptions(max_restarts=max_restarts), keeper=keeper).streams
    conductor = stream._conductor
    try:
        wait_until(lambda: len(conductor._pool.working()) == 2, "the producers do not start")
        os.kill(producer_pids()[0], signal.SIGKILL)
        wait_until(lambda: conductor.crew.num_lost == 1, "the loss is not noticed")
        stream.start()
        if max_restarts:
            assert [number_of(stream.next_item().batch()) for _ in range(6)] == [0, 0, 1, 1, 2, 2]
        else:
            with pytest.raises(
                ProducerDiedError, match=r"producer \d \(.*\) died before it ran its copy of validation_d"
            ):
                numbers_of(stream.next_item().batch() for _ in range(6))
    finally:
        keeper.close()
