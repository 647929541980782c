"""A generator's producer is killed: its position is lost, and what follows is the caller's choice (contract F2)."""

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

OR_ERROR = ProducerOptions(on_generator_loss="error")


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
    with rayfeed.Feed(
        mortal(log, dying, 5), workers, use_multiprocessing=True, max_queue_size=2, producers=OR_ERROR
    ) as feed:
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
    with rayfeed.Feed(mortal(log, -1, 0), 2, use_multiprocessing=True, producers=OR_ERROR) as feed:
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


def once_mortal(once, copy_that_dies, place_of_death, length=None):
    """As `mortal`, but only the first process that gets there dies."""

    def generate():
        info = rayfeed.get_worker_info()
        for place in itertools.count() if length is None else range(length):
            if (info.id, place) == (copy_that_dies, place_of_death) and once("death"):
                die()
            yield batch(100 * info.id + place)

    return generate


def told(caught):
    return [str(warning.message) for warning in caught if "died while it ran" in str(warning.message)]


@pytest.mark.parametrize("workers", [1, 2])
def test_by_default_a_lost_copy_begins_anew_and_its_stream_goes_on_with_a_warning(workers, once):
    source = once_mortal(once, workers - 1, 5, length=12)
    with rayfeed.Feed(source, workers, use_multiprocessing=True, max_queue_size=2) as feed:
        with pytest.warns(UserWarning, match="died while it ran") as caught:
            numbers = numbers_of(feed)
        assert feed.stats().lost_producers == 1
    for copy in range(workers - 1):
        assert [number % 100 for number in numbers if number // 100 == copy] == list(range(12))
    places = [number % 100 for number in numbers if number // 100 == workers - 1]
    assert places[-12:] == list(range(12)), "the copy that begins anew runs to its end"
    assert places[:-12] == list(range(len(places) - 12)), "and before it came what had arrived"
    assert len(places) - 12 <= 5
    (text,) = told(caught)
    assert re.match(rf"producer {workers - 1} \(node [\d.]+, pid \d+\) died while it ran source, a generator", text)
    for part in ("begins anew, and batches that were seen may come again", "A Sequence in its place", "on_generator_l"):
        assert part in text


def test_a_lost_copy_may_be_dropped_while_others_go_on(once):
    options = ProducerOptions(on_generator_loss="drop")
    source = once_mortal(once, 0, 5, length=12)
    with (
        rayfeed.Feed(source, 2, use_multiprocessing=True, max_queue_size=2, producers=options) as feed,
        pytest.warns(UserWarning, match="goes on without that copy") as caught,
    ):
        numbers = numbers_of(feed)
    assert [number for number in numbers if number >= 100] == list(range(100, 112))
    places = [number for number in numbers if number < 100]
    assert places == list(range(len(places)))
    assert len(places) <= 5
    assert len(told(caught)) == 1


def test_the_last_copy_is_not_dropped_in_silence(once):
    options = ProducerOptions(on_generator_loss="drop")
    with (
        rayfeed.Feed(once_mortal(once, 0, 5), max_queue_size=2, producers=options) as feed,
        pytest.raises(ProducerDiedError, match=r"the last copy that made batches \(ProducerOptions.on_generator_loss"),
    ):
        numbers_of(feed)


def test_a_copy_that_dies_again_and_again_uses_up_its_restarts(log):
    options = ProducerOptions(max_restarts=1)
    with (
        rayfeed.Feed(mortal(log, 0, 2), max_queue_size=2, producers=options) as feed,
        pytest.warns(UserWarning, match="begins anew"),
        pytest.raises(ProducerDiedError, match=r"1 of 1 restarts within 60 s are used"),
    ):
        numbers_of(feed)
