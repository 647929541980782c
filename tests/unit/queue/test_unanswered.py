"""Calls that end without batches though nobody died: there was no room, or the answer cannot be given (again)."""

import queue
import re
import threading

import pytest
from ray.exceptions import LocalRayletDiedError, ObjectStoreFullError, OutOfDiskError, RayTaskError

from rayfeed.errors import BatchError, InternalError, ProducerDiedError, StoreFullError
from rayfeed.producer.failed_call import is_full, is_loss, is_own_node_lost
from rayfeed.producer.home_pool import HomePool
from rayfeed.producer.mailbox import Mailbox
from rayfeed.producer.messages import Ended, Forgotten, NotFetched, Run, SourceRecord, Ticket
from rayfeed.queue.bound import Bound
from rayfeed.queue.conductor import Conductor
from rayfeed.queue.deliveries import StreamEnded
from rayfeed.queue.fullness import LASTS_S, LEAST_TRIES, Fullness
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.stream import ProducedStream
from rayfeed.source.stream import SourceInfo

RECORD = SourceRecord(
    SourceInfo(is_sequence=False, length=None, has_epoch_end=False, type_name="generate"),
    "source",
    root=0,
    seeded=False,
    bare_inputs=False,
    num_lanes=1,
    directory="",
)
END = Ended(Run(None, 0, 0.0, 0.0, asked=False))
TICKET = Ticket(3, 0, 1, 12, (12,))


class Crew(HomePool):
    """Answers each ticket with what comes next."""

    def __init__(self, ends, post):
        super().__init__(Mailbox(), None, 60.0, post)
        self.ends = iter(ends)
        self.submitted = []
        self.downs = queue.SimpleQueue()

    def submit(self, worker, ticket, record, state, on_done):
        self.submitted.append(ticket)
        end = next(self.ends)
        answer, error = (None, end) if isinstance(end, BaseException) else (end, None)
        # From another thread, as Ray does.
        threading.Thread(target=on_done, args=(0, answer, error)).start()

    def on_down(self, event, making):
        self.downs.put(event)
        return False


@pytest.fixture
def open_stream(monkeypatch):
    monkeypatch.setattr("rayfeed.queue.conductor.WATCH_INTERVAL_S", 0.01)
    conductors = []

    def opened(*ends):
        conductor = Conductor(lambda post: Crew(ends, post))
        conductors.append(conductor)
        conductor.start()
        state = conductor.open_stream(
            RECORD, None, lambda number: LaneWindow(stream=number, bound=Bound(1), plan=LanePlan(max_batches=1))
        )
        return ProducedStream(conductor, state), conductor

    yield opened
    for conductor in conductors:
        conductor.close()


def task_error(cause):
    return RayTaskError("make", "Traceback", cause)


def test_a_ticket_whose_answer_had_no_room_is_sent_again_after_a_pause_and_told_once(open_stream):
    stream, conductor = open_stream(
        OutOfDiskError("disk full\nmore"),
        ObjectStoreFullError("full"),
        task_error(OutOfDiskError("there")),
        NotFetched("ObjectStoreFullError: full", is_full=True),
        END,
    )
    with pytest.warns(UserWarning, match="there is no room for") as told:
        assert isinstance(stream.next_item(), StreamEnded)
    assert conductor.crew.submitted == [conductor.crew.submitted[0]] * 5
    (text,) = [str(one.message) for one in told]
    assert text.startswith(
        "there is no room for batch 0 of pass 0 of a thread of the caller's process: OutOfDiskError: "
    )
    assert "It is asked for again until there is room, for 60 s at most." in text
    assert "start Ray with a larger object_store_memory" in text
    assert "more" not in text.split("Free")[0]


def test_no_room_for_a_minute_is_an_error_and_a_batch_that_came_ends_the_count():
    now = 0.0
    fullness = Fullness(lambda: now)
    error = "OutOfDiskError: disk full\nmore"
    assert fullness.had_none(TICKET, "producer 1", error) is not None
    now = LASTS_S - 1
    assert fullness.had_none(TICKET, "producer 1", error) is None
    fullness.had_room()
    now = LASTS_S + 1
    assert fullness.had_none(TICKET, "producer 1", error) is None
    now = 2 * LASTS_S + 1
    for _ in range(LEAST_TRIES - 2):
        assert fullness.had_none(TICKET, "producer 1", error) is None, "a batch may take longer to make than that"
    with pytest.raises(StoreFullError) as caught:
        fullness.had_none(TICKET, "producer 1", error)
    assert re.match(
        r"there is no room for batch 12 of pass 1 of producer 1: OutOfDiskError: .*\n"
        r"  For 60 s no batch had room\. Free",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Forgotten(), "its answer for batch 0 of pass 0 was lost on its way, and cannot be given again"),
        (NotFetched("too slow"), "it could not get what makes batch 0 of pass 0 from the object store: too slow"),
    ],
)
def test_a_producer_that_cannot_answer_is_taken_for_lost(answer, told, open_stream):
    stream, conductor = open_stream(answer)
    stream.start()
    assert str(conductor.crew.downs.get(timeout=20).error) == told


@pytest.mark.parametrize(
    ("error", "type_", "told"),
    [
        (LocalRayletDiedError(), ProducerDiedError, "Ray's process of this node (raylet) ended while a feed was open"),
        (BatchError("names os.system"), BatchError, "names os.system"),
        (task_error(ValueError("no")), InternalError, "a producer's call failed by no fault of its process"),
    ],
)
def test_what_no_producer_can_be_blamed_for_ends_the_stream_with_its_reason(error, type_, told, open_stream):
    stream, _ = open_stream(error)
    with pytest.raises(type_) as caught:
        stream.next_item()
    assert told in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [OutOfDiskError(""), ObjectStoreFullError(""), task_error(OutOfDiskError(""))])
def test_no_room_is_no_loss(error):
    assert is_full(error)
    assert not is_loss(error)
    assert not is_own_node_lost(error)
