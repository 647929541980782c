"""Tickets that are out, and those whose call broke: sent again in order, and only when nothing else is out."""

from rayfeed.producer.messages import Ticket
from rayfeed.queue.asking import Asking


def ticket(number):
    return Ticket(number, 0, 0, number, (number,))


def test_what_broke_is_asked_again_in_order_once_all_of_it_came_back():
    asking = Asking()
    for _ in range(3):
        asking.sent(4)
    asking.came_back(4)
    asking.broke(4, 0, ticket(7))
    assert asking.holds_back(4)
    assert not asking.holds_back(3)
    assert asking.again(4) == [], "two are out"
    asking.came_back(4)
    asking.broke(4, 0, ticket(6))
    assert asking.again(4) == []
    asking.came_back(4)
    assert [found.number for _, found in asking.again(4)] == [6, 7]
    assert not asking.holds_back(4)
    assert asking.again(4) == []


def test_what_a_lost_producer_was_asked_for_is_not_asked_again():
    asking = Asking()
    asking.sent(0)
    asking.came_back(0)
    asking.broke(0, 0, ticket(1))
    asking.lost(0)
    assert asking.again(0) == []
    assert not asking.holds_back(0)


def test_it_is_idle_when_every_ticket_came_back():
    asking = Asking()
    assert asking.is_idle
    asking.sent(0)
    asking.sent(1)
    asking.came_back(0)
    assert not asking.is_idle
    asking.came_back(1)
    assert asking.is_idle
