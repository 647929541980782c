"""A generator's tickets whose answers did not arrive: they come again, and are answered as the first time."""

import itertools
import threading

import numpy as np
import pytest

from rayfeed.frame.codec import INLINE_BYTES
from rayfeed.producer.compressor import Compressor
from rayfeed.producer.maker import Maker
from rayfeed.producer.messages import Ended, Forgotten, OutOfTurn, Ticket
from rayfeed.producer.results import from_result, to_result
from tests.unit.producer.test_maker import PLACE, Numbers, Stream, firsts, numbers


def ticket(number, place, count=1):
    return Ticket(number, 0, 0, place, tuple(range(place, place + count)))


def test_the_newest_answers_are_given_again():
    stream = Stream(numbers())
    first, second = ticket(3, 0), ticket(5, 1)
    answers = [stream.ask(one) for one in (first, second)]
    assert [stream.ask(one) for one in (first, second)] == answers
    assert firsts(stream.ask(second)) == [1]
    assert firsts(stream.ask(ticket(6, 2))) == [2]


def test_no_more_than_two_are_kept():
    stream = Stream(numbers(9))
    for number in range(5):
        stream.ask(ticket(number, number))
    assert [stream.ask(ticket(number, number)) == Forgotten() for number in range(5)] == [True] * 3 + [False] * 2


def test_an_end_is_given_again_too():
    stream = Stream(numbers(1))
    last = ticket(0, 0, 3)
    assert isinstance(stream.ask(last), Ended)
    assert stream.ask(last) is stream.ask(last)
    assert firsts(stream.ask(last)) == [0]


def test_what_comes_before_its_turn_is_not_made():
    stream = Stream(numbers())
    stream.ask(ticket(0, 0))
    assert stream.ask(ticket(2, 2)) == OutOfTurn()
    assert firsts(stream.ask(ticket(1, 1))) == [1]
    assert firsts(stream.ask(ticket(2, 2))) == [2]
    for answer in (OutOfTurn(), Forgotten()):
        assert from_result(to_result(answer)) == answer


def test_a_copy_that_begins_anew_makes_whatever_comes_first():
    stream = Stream(numbers())
    assert firsts(stream.ask(ticket(40, 57))) == [0]
    assert firsts(stream.ask(ticket(41, 58))) == [1]


def test_a_gap_that_another_copy_filled_is_no_reason_to_refuse_for_ever():
    stream = Stream(numbers())
    stream.ask(ticket(5, 10))
    assert stream.ask(ticket(7, 12)) == OutOfTurn()
    assert firsts(stream.ask(ticket(7, 12))) == [1]
    assert firsts(stream.ask(ticket(8, 13))) == [2]


def test_a_sequences_answers_are_not_kept():
    stream = Stream(Numbers())
    stream.ask(ticket(0, 0))
    assert stream.ask(ticket(0, 0)) is not stream.ask(ticket(0, 0))
    assert firsts(stream.ask(ticket(1, 7))) == [7]


LARGE = INLINE_BYTES // 8


def refilling(num_buffers=1, size=LARGE):
    buffers = [np.zeros((1, size)) for _ in range(num_buffers)]
    for place in range(100):
        buffer = buffers[place % num_buffers]
        buffer[:] = place
        yield buffer, np.zeros(1)


@pytest.mark.parametrize("count", [1, 3])
def test_a_source_that_fills_one_array_again_and_again_spoils_no_answer_that_is_given_again(count):
    stream = Stream(refilling)
    tickets = [ticket(number, number * count, count) for number in range(5)]
    stream.ask(tickets[0])
    stream.ask(tickets[1])
    assert stream.ask(tickets[0]) == Forgotten(), "it was written over before that was known"
    for before, newest in itertools.pairwise(tickets[1:]):
        stream.ask(newest)
        assert firsts(stream.ask(before)) == list(before.indices)
        assert firsts(stream.ask(newest)) == list(newest.indices)


def test_arrays_that_are_no_part_of_the_newest_answer_may_be_filled_again():
    stream = Stream(lambda: refilling(2))
    for number in range(4):
        stream.ask(ticket(number, number))
        assert [firsts(stream.ask(ticket(one, one))) for one in range(max(number - 1, 0), number + 1)] == [
            [one] for one in range(max(number - 1, 0), number + 1)
        ]
    assert not stream.maker._answers[0].refills


@pytest.mark.parametrize(
    ("source", "compressor"), [(lambda: refilling(size=10), None), (refilling, Compressor("lz4"))], ids=["small", "lz4"]
)
def test_answers_that_share_no_memory_with_the_source_are_not_taken_for_spoilt(source, compressor):
    stream = Stream(source, maker=Maker(0, PLACE, compressor=compressor))
    stream.ask(ticket(0, 0))
    stream.ask(ticket(1, 1))
    assert [firsts(stream.ask(ticket(number, number))) for number in (0, 1)] == [[0], [1]]


class Gated:
    """An iterator that waits with every batch until its gate is open."""

    begun, gate = threading.Event(), threading.Event()

    def __init__(self):
        self.place = -1

    def __next__(self):
        self.begun.set()
        assert self.gate.wait(20)
        self.place += 1
        return np.full((1, 1), self.place), None


def test_a_ticket_that_comes_again_while_it_is_being_made_is_made_once():
    stream = Stream(Gated(), maker=Maker(0, PLACE, num_threads=2))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(stream.ask(ticket(0, 0)))) for _ in range(2)]
    threads[0].start()
    assert Gated.begun.wait(20)
    threads[1].start()
    Gated.gate.set()
    for thread in threads:
        thread.join(20)
    assert [firsts(answer) for answer in answers] == [[0], [0]]
    assert firsts(stream.ask(ticket(1, 1))) == [1]
