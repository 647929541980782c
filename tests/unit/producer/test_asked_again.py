"""A generator's tickets whose answers did not arrive: they come again, and are answered as the first time."""

from rayfeed.producer.messages import Ended, OutOfTurn, Ticket, from_result, to_result
from tests.unit.producer.test_maker import Numbers, Stream, firsts, numbers


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
    assert list(stream.maker._opened[0].newest) == [3, 4]


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
    assert from_result(to_result(OutOfTurn())) == OutOfTurn()


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
    assert stream.maker._opened[0].newest == {}
    assert firsts(stream.ask(ticket(1, 7))) == [7]
