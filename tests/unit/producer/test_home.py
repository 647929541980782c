"""The mailbox and the thread at home, without Ray: orders in, answers out, and whose the user's object stays."""

import os
import random
import threading

import numpy as np
import pytest

from rayfeed.errors import InternalError
from rayfeed.frame.codec import decode
from rayfeed.producer.home import HomeMaker, HomeThread
from rayfeed.producer.home_pool import HomePool, LocalOrders
from rayfeed.producer.mailbox import Mailbox
from rayfeed.producer.messages import Ended, Made, Raised, Run, SourceRecord, Ticket
from rayfeed.source.failure import Failure
from rayfeed.source.stream import describe
from tests.sources import batch, number_of

NOTHING = Made(Run(None, 0, 0.0, 0.0, asked=False))
WAIT_S = 5.0


def ticket(first=0, count=1, stream=0):
    return Ticket(first, stream, 0, first, tuple(range(first, first + count)))


def record_of(source, name="generator", directory="/nowhere", seeded=False):
    info = describe(source, name=name)
    return SourceRecord(info, name, root=1, seeded=seeded, bare_inputs=False, num_lanes=1, directory=directory)


def numbers_in(answer):
    reader = decode(answer.run.frame)
    return [number_of(reader.batch(place)) for place in range(reader.num_batches)]


class Desk:
    """A thread at home, its mailbox, and what came back."""

    def __init__(self, source, **record):
        self.box = Mailbox()
        self.record = record_of(source, **record)
        self.thread = HomeThread(LocalOrders(self.box), {"generator": source}, shares_memory=True)
        self.thread.start()

    def ask(self, *tickets):
        """The answers to these tickets, in their order."""
        answers, there = {}, threading.Event()

        def take(number):
            def on_answer(answer):
                answers[number] = answer
                if len(answers) == len(tickets):
                    there.set()

            return on_answer

        for one in tickets:
            self.box.post(one, self.record, take(one.number))
        assert there.wait(WAIT_S)
        return [answers[one.number] for one in tickets]

    def close(self):
        self.box.close()
        self.thread.close()
        assert not self.thread._thread.is_alive()


@pytest.fixture
def desk():
    desks = []

    def make(source, **record):
        desks.append(Desk(source, **record))
        return desks[-1]

    yield make
    for one in desks:
        one.close()


def count(start=0, stop=1 << 30):
    for number in range(start, stop):
        yield batch(number)


# The mailbox


def test_an_answer_goes_to_the_order_it_names_and_only_once():
    box, found = Mailbox(), []
    for number in range(2):
        box.post(ticket(number), None, lambda answer, number=number: found.append((number, answer)))
    first, second = box.take(0)
    box.answer(second.key, NOTHING)
    box.answer(first.key, NOTHING)
    box.answer(first.key, NOTHING)
    assert found == [(1, NOTHING), (0, NOTHING)]


def test_orders_are_taken_once_and_none_are_an_empty_list():
    box = Mailbox()
    box.post(ticket(), None, pytest.fail)
    assert [order.ticket.number for order in box.take(0)] == [0]
    assert box.take(0) == []


def test_after_a_failure_every_order_raises_it_also_later_ones():
    box, found = Mailbox(), []
    failure = Failure.of(ValueError("gone"), "there")
    box.post(ticket(0), None, found.append)
    box.take(0)
    box.post(ticket(1), None, found.append)
    box.fail(failure)
    box.post(ticket(2), None, found.append)
    assert [answer.failure for answer in found] == [failure] * 3
    assert box.take(0) == []


def test_the_orders_of_a_closed_stream_are_taken_back():
    box, found = Mailbox(), []
    for number in range(4):
        box.post(ticket(number, stream=number % 2), None, found.append)
    box.drop_stream(0)
    assert [order.ticket.number for order in box.take(0)] == [1, 3]
    assert found == [Ended(NOTHING.run)] * 2


def test_a_closed_mailbox_wakes_who_waits_and_drops_what_comes_late():
    box, found = Mailbox(), []
    box.post(ticket(), None, pytest.fail)
    (order,) = box.take(0)
    waiting = threading.Thread(target=lambda: found.append(box.take(60)))
    waiting.start()
    box.close()
    waiting.join(WAIT_S)
    assert found == [None]
    box.answer(order.key, NOTHING)
    box.post(ticket(1), None, pytest.fail)
    assert box.take(0) is None


def test_keys_of_two_mailboxes_never_meet():
    keys = set()
    for _ in range(2):
        box = Mailbox()
        box.post(ticket(), None, pytest.fail)
        keys |= {order.key for order in box.take(0)}
    assert len(keys) == 2


# The thread


def test_it_makes_what_was_ordered_and_not_one_batch_more(desk):
    mine = count()
    next(mine)
    one = desk(mine)
    assert [numbers_in(answer) for answer in one.ask(ticket(0, 3), ticket(3, 1))] == [[1, 2, 3], [4]]
    one.close()
    assert number_of(next(mine)) == 5


class Counting:
    """An iterator that is no generator, and would notice being closed."""

    closed = False

    def __init__(self):
        self.number = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        return batch(self.number)

    def close(self):
        self.closed = True


def closing(log, start=0):
    try:
        yield from count(start)
    finally:
        log.append("closed")


def test_an_iterator_and_a_generator_object_stay_their_owners(desk):
    log = []
    for mine, expected in ((Counting(), 2), (closing(log), 1)):
        one = desk(mine)
        one.ask(ticket())
        one.close()
        assert number_of(next(mine)) == expected
        assert not getattr(mine, "closed", False)
        assert log == []


def test_a_generator_made_from_a_function_is_closed_in_the_end(desk):
    log = []
    one = desk(lambda: closing(log))
    one.ask(ticket())
    assert log == []
    one.close()
    assert log == ["closed"]


def test_a_started_generator_that_a_function_gives_is_not_closed(desk):
    log = []
    mine = closing(log)
    next(mine)
    one = desk(lambda: mine)
    one.ask(ticket())
    one.close()
    assert log == []
    assert number_of(next(mine)) == 2


def test_the_callers_directory_and_random_states_are_left_alone(desk, tmp_path):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the caller's own
    expected = random.random(), np.random.rand()  # noqa: NPY002 - as above
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - as above
    before = os.getcwd()  # noqa: PTH109 - what a chdir changes
    desk(count(), directory=str(tmp_path), seeded=True).ask(ticket(0, 5))
    assert os.getcwd() == before  # noqa: PTH109 - as above
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002 - as above


def test_an_exception_and_an_end_come_after_the_batches_before_them(desk):
    def failing():
        yield batch(0)
        raise KeyError("row 7")

    (answer,) = desk(failing).ask(ticket(0, 3))
    assert isinstance(answer, Raised)
    assert numbers_in(answer) == [0]
    assert answer.failure.where == f"a thread of the caller's process (pid {os.getpid()}), generator: batch 1"
    (answer,) = desk(count(0, 2)).ask(ticket(0, 3))
    assert isinstance(answer, Ended)
    assert numbers_in(answer) == [0, 1]


@pytest.mark.parametrize("size", [2, 50_000], ids=["small", "large"])
def test_a_buffer_that_is_filled_again_does_not_change_what_waits(size, desk):
    def refilling():
        inputs, targets = batch(0, size)
        for number in range(1 << 30):
            inputs[:], targets[:] = number, number
            yield inputs, targets

    answers = desk(refilling()).ask(*(ticket(first) for first in range(5)))
    assert [numbers_in(answer) for answer in answers] == [[number] for number in range(5)]


def test_what_is_sent_at_once_is_not_copied():
    mine = count()
    for shares, expected in ((True, False), (False, True)):
        maker = HomeMaker({"generator": mine}, shares_memory=shares)
        assert maker._is_sent_at_once(is_last=True) is expected
        assert maker._is_sent_at_once(is_last=False) is False


def test_what_goes_wrong_in_the_thread_itself_is_told_to_every_order():
    class Broken:
        def __init__(self, box):
            self.box = box
            self.failed = threading.Event()

        def take(self):
            return self.box.take(WAIT_S)

        def answer(self, order, answer):
            raise MemoryError("no room for the answer")

        def fail(self, failure):
            self.box.fail(failure)
            self.failed.set()

    mine, found = count(), []
    orders = Broken(Mailbox())
    orders.box.post(ticket(), record_of(mine), found.append)
    thread = HomeThread(orders, {"generator": mine}, shares_memory=True)
    thread.start()
    assert orders.failed.wait(WAIT_S)
    thread.close()
    with pytest.raises(MemoryError, match="no room for the answer"):
        raise found[0].failure.error()


def test_a_hanging_source_does_not_keep_close_waiting_and_is_named(monkeypatch, caplog):
    monkeypatch.setattr("rayfeed.producer.home.CLOSE_TIMEOUT_S", 0.05)
    entered, gate = threading.Event(), threading.Event()

    def hanging():
        entered.set()
        gate.wait(WAIT_S)
        yield batch(0)

    box, mine = Mailbox(), hanging()
    thread = HomeThread(LocalOrders(box), {"generator": mine}, shares_memory=True)
    thread.start()
    box.post(ticket(), record_of(mine), pytest.fail)
    assert entered.wait(WAIT_S)
    box.close()
    thread.close()
    assert "generator is still making a batch in a thread of this process" in caplog.text
    gate.set()
    thread._thread.join(WAIT_S)
    assert not thread._thread.is_alive()


def test_the_crew_of_one_tells_that_it_came_and_refuses_what_cannot_happen():
    posted = []
    pool = HomePool(Mailbox(), None, 60.0, posted.append)
    pool.start()
    assert pool.on_up(posted[0])
    assert (pool.working(), pool.gone(), pool.num_threads, pool.num_lost) == ([0], {}, 1, 0)
    with pytest.raises(InternalError):
        pool.store(b"")
    pool.close()
    pool.close()
