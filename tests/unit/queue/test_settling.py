"""A conductor from one call to the next, without Ray: its crew is a mailbox that the test empties."""

import threading

import pytest

from rayfeed.errors import InternalError
from rayfeed.producer.home_pool import HomePool
from rayfeed.producer.mailbox import Mailbox
from rayfeed.producer.messages import Ended, Run, SourceRecord
from rayfeed.queue.bound import Bound
from rayfeed.queue.conductor import Conductor
from rayfeed.queue.deliveries import StreamEnded
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.stream import ProducedStream
from rayfeed.source.stream import SourceInfo

WAIT_S = 5.0
SOON_S = 0.05
INFO = SourceInfo(is_sequence=False, length=None, has_epoch_end=False, type_name="generator")
RECORD = SourceRecord(INFO, "generator", 1, seeded=False, bare_inputs=False, num_lanes=1, directory="/")
END = Ended(Run(None, 0, 0.0, 0.0, asked=False))


class Crew(HomePool):
    """Counts what is asked of it."""

    def __init__(self, box, post):
        super().__init__(box, None, 60.0, post)
        self.num_renewed = self.num_checked = 0

    def renew(self):
        self.num_renewed += 1

    def look(self, needed):
        self.num_checked += 1


@pytest.fixture
def box():
    return Mailbox()


@pytest.fixture
def conductor(box):
    conductor = Conductor(lambda post: Crew(box, post))
    conductor.start()
    yield conductor
    conductor.close()
    assert not conductor.is_alive()


def opened(conductor):
    state = conductor.open_stream(
        RECORD, None, lambda number: LaneWindow(stream=number, bound=Bound(3), plan=LanePlan(max_batches=1))
    )
    return ProducedStream(conductor, state)


def test_without_streams_it_is_settled_at_once(conductor):
    assert conductor.settle(WAIT_S)
    assert conductor._pool.num_renewed == 1


def test_an_open_stream_keeps_it_from_settling(conductor):
    stream = opened(conductor)
    assert not conductor.settle(SOON_S)
    stream.close()
    assert conductor.settle(WAIT_S)


def test_a_ticket_of_a_closed_stream_that_is_still_being_made_keeps_it_from_settling(conductor, box):
    stream = opened(conductor)
    stream.start()
    orders = box.take(WAIT_S)
    stream.close()
    assert not conductor.settle(SOON_S)
    settled = threading.Thread(target=lambda: results.append(conductor.settle(WAIT_S)))
    results = []
    settled.start()
    for order in orders:
        box.answer(order.key, END)
    settled.join(WAIT_S)
    assert results == [True]


def test_streams_may_be_opened_one_after_another_while_it_runs(conductor, box):
    for number in range(3):
        stream = opened(conductor)
        stream.start()
        for order in box.take(WAIT_S):
            assert order.ticket.stream == number
            box.answer(order.key, END)
        assert isinstance(stream.next_item(), StreamEnded)
        stream.close()
        assert conductor.settle(WAIT_S)


def test_between_two_calls_nobody_waits_for_a_place(conductor, monkeypatch):
    monkeypatch.setattr("rayfeed.queue.conductor.WATCH_INTERVAL_S", 0.0)
    for _ in range(3):
        assert conductor.settle(WAIT_S)
    assert conductor._pool.num_checked == 0
    stream = opened(conductor)
    assert not conductor.settle(SOON_S)
    assert conductor._pool.num_checked > 0
    stream.close()


def test_a_stream_opened_after_the_thread_failed_raises_its_reason(conductor):
    conductor._post("nonsense")
    conductor._thread.join(WAIT_S)
    assert not conductor.is_usable()
    with pytest.raises(InternalError, match="unknown event 'nonsense'"):
        opened(conductor).next_item()


def test_frames_are_given_up_when_the_crew_rests_and_before_it_ends(box):
    seen = []

    class Watched(Crew):
        def rest(self):
            seen.append(("rest", len(state.window.issued)))

        def close(self):
            seen.append(("close", len(state.window.issued)))
            super().close()

    conductor = Conductor(lambda post: Watched(box, post))
    conductor.start()
    state = conductor.open_stream(
        RECORD, None, lambda number: LaneWindow(stream=number, bound=Bound(3), plan=LanePlan())
    )
    ProducedStream(conductor, state).start()
    box.take(WAIT_S)
    conductor.close()
    assert seen == [("rest", 2), ("close", 0)]
