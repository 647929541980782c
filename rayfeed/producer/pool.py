"""The producers of one call: start, place, watch, replace, end.

The pool lives in the feed's process and is used by one thread, its driver's. Ray's threads only post events to that
driver: `Up` when a producer answers for the first time, `Down` when its process is known to be gone (a call that is
never answered fails then, also for an idle producer).

A ticket's answer is fetched by Ray's own thread the moment it is there (`future`), which pulls the frame to this node
at once: a frame that reached this node survives its producer's node.

    waiting --Up--> working --Down--> waiting (replaced) ... until max_restarts --> gone ... a minute on --> waiting
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RuntimeEnvSetupError

from rayfeed.errors import ProducerDiedError
from rayfeed.options import ProducerOptions
from rayfeed.producer.actor import IDLE_TIMEOUT_S, Producer
from rayfeed.producer.cluster import BIRTH_S, connection, draining_nodes
from rayfeed.producer.crew import CrewEvent, Down, OnDone, Up
from rayfeed.producer.failed_call import HangError, advice
from rayfeed.producer.links import Links
from rayfeed.producer.member import Member, State
from rayfeed.producer.messages import Opened, SourceRecord, Ticket
from rayfeed.producer.placement import Claim, Patience, no_environment, start_timeout_s
from rayfeed.producer.restarts import Restarts
from rayfeed.producer.results import answer_of
from rayfeed.producer.spreading import Spread

CUT_S = 30.0
"""How long a producer that runs a generator may be out of reach, where Ray does not know of its death."""

END_TIMEOUT_S = 10.0
"""How long the end of killed processes is waited for; Ray takes some milliseconds."""


class Pool:
    """Producers that run any number of streams' sources.

    Args:
        num_producers: How many there may be.
        least: How many there are at the start, and always; None for all.
        num_threads: Threads of each that make batches; 1 keeps calls in order.
        claim: What each needs of its node.
        options: Restarts and deadlines.
        post: Takes events to the driver; called from Ray's threads.
    """

    def __init__(
        self,
        *,
        num_producers: int,
        least: int | None = None,
        num_threads: int,
        claim: Claim,
        options: ProducerOptions,
        post: Callable[[CrewEvent], None],
    ) -> None:
        self.num_threads = num_threads
        self.num_lost = 0
        self.span = (num_producers if least is None else least, num_producers)
        self.batch_timeout_s = options.batch_timeout_s
        self.can_replace = True
        self._claim = claim
        self._options = options
        self._post = post
        self._connection = connection()
        self._node_id = ray.get_runtime_context().get_node_id()
        self._rests = False
        self._start_timeout_s = start_timeout_s(options)
        self._patience = Patience(claim, "ProducerOptions", self._start_timeout_s)
        self._spread = Spread(claim, self._node_id)
        self._links = Links(self._node_id)
        self._hides_gpus = not claim.sets("CUDA_VISIBLE_DEVICES")
        self._members = [Member(worker, Restarts(options.max_restarts)) for worker in range(num_producers)]
        settings: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "enable_task_events": False,
            "scheduling_strategy": "SPREAD",
            "concurrency_groups": {"data": num_threads, "control": 2},
        }
        decorate: Any = ray.remote(**settings, **claim.actor_options())
        self._actor_class: Any = decorate(Producer)

    def start(self) -> None:
        """Ask for the least producers; they report by `Up` as they come."""
        for member in self._members:
            member.state = State.DORMANT
        self.grow(self.span[0])

    def num_members(self) -> int:
        """Producers that work or are waited for."""
        return sum(member.state in (State.WAITING, State.WORKING) for member in self._members)

    def num_starting(self) -> int:
        """Producers that were asked for and have not come."""
        return len(self._waiting())

    def grow(self, number: int) -> None:
        """Ask for so many producers more."""
        for member in [member for member in self._members if member.state is State.DORMANT][:number]:
            self._launch(member)

    def retire(self, worker: int) -> None:
        """End a producer that has nothing in its hands."""
        member = self._members[worker]
        ray.kill(member.actor)
        member.let_go(State.DORMANT)
        member.life += 1  # news of its end is of an earlier life

    def store(self, value: Any) -> Any:
        """Put an object into the object store, whence each node fetches it once; Ray writes arrays without a detour."""
        if not self.is_connected():  # Ray would start a cluster
            raise ProducerDiedError("this process' connection to Ray ended while a source was to be sent.")
        return ray.put(value)

    def fetch(self, stored: Any) -> Any:
        """What was put there; its arrays are read-only views."""
        return ray.get(stored)

    def submit(self, worker: int, ticket: Ticket, record: SourceRecord, state: Any, on_done: OnDone) -> None:
        """Send a ticket to a working producer; `on_done` is called from Ray's thread."""
        member = self._members[worker]
        life = member.life

        def on_answer(future: concurrent.futures.Future[Any]) -> None:
            on_done(life, *answer_of(future))

        if self.num_threads == 1 and member.told.get(ticket.stream) == ticket.version:
            call = member.actor.make.remote(ticket.to_bytes())
        else:
            call = member.actor.make_first.remote(ticket.to_bytes(), record, (state,))
            member.told[ticket.stream] = ticket.version
        call.future().add_done_callback(on_answer)

    def close_stream(self, stream: int) -> None:
        """Let producers that work forget a stream's source."""
        for member in self._members:
            member.told.pop(stream, None)
            if member.state is State.WORKING:
                member.actor.drop_stream.remote(stream)
                member.actor.close_stream.remote(stream)

    def on_up(self, event: Up) -> bool:
        """Take note of a producer that came; False if it is of an earlier life."""
        member = self._members[event.worker]
        if event.life != member.life or member.state is not State.WAITING:
            return False
        member.came(event.opened)
        member.restarts.came_up()
        return True

    def on_down(self, event: Down, making: str) -> bool:
        """Take note of a lost producer and replace it while its restarts last; False if it is of an earlier life.

        Raises:
            ProducerDiedError: It was the last one, and may not be replaced now.
            PlacementError: Its runtime environment could not be set up, and no other producer works.
        """
        member = self._members[event.worker]
        if event.life != member.life or member.state in (State.GONE, State.DORMANT):
            return False
        if isinstance(event.error, RuntimeEnvSetupError) and not self.working():
            raise no_environment(event.error, what=str(member), options="ProducerOptions") from event.error
        ray.kill(member.actor)  # a producer that is cut off, or whose answer is lost, may live: it must not go on
        described, now = str(member), time.monotonic()
        if isinstance(event.error, ActorDiedError):
            member.node_id = None  # Ray knows of the death: that node serves as well as any, or is known to be gone
        member.due = member.restarts.next(now)
        if member.due is None:
            member.due = member.restarts.again()
            member.let_go(State.GONE)
        else:
            self._await_life(member, now)
        self.num_lost += 1  # now that other threads no longer see it among those that work
        if member.state is State.WAITING:
            self._launch_due(now)
        elif all(other.state in (State.GONE, State.DORMANT) for other in self._members):
            raise ProducerDiedError(
                f"{described} died{making and f' while making {making}'}, and it was the last one: {event.error}\n"
                f"  Not replaced: {member.restarts}.\n  {advice(event.error)}"
            ) from event.error
        return True

    def is_worth_asking(self, event: Down) -> bool:
        """Whether a producer that a call did not reach may be asked again; not for long, since Ray knows of a death."""
        member = self._members[event.worker]
        if event.life != member.life or member.state is not State.WORKING:
            return False
        return member.note_cut(time.monotonic(), self._post) <= CUT_S

    def renew(self) -> None:
        """A new call begins: restarts, and the deadline for starting, count from here."""
        for member in self._members:
            member.restarts.renew()
            if member.state is State.WAITING:
                member.since = time.monotonic()

    def look(self, needed: Collection[int]) -> str | None:
        """Start the replacements that are due; see whether any has waited too long.

        Args:
            needed: Producers whose work no other can do: each runs a generator's copy. Of the rest any one will do.

        Returns:
            What the consumer is to be told of those that wait.

        Raises:
            PlacementError: A producer's deadline for starting has passed, and the streams need it.
        """
        self._launch_due(time.monotonic())
        for member in self._members:
            if member.was_not_heard():
                member.open(self._post)
        working = [member for member in self._members if member.state is State.WORKING]
        if self._options.compression == "auto":
            self._links.look(working)
        waiting = [(member, time.monotonic() - member.since) for member in self._waiting()]
        for member, waited_s in waiting:
            is_needed = not working or member.worker in needed
            if is_needed and waited_s > self._start_timeout_s:
                who, each = f"producer {member.worker}", f"each of {len(self._members)}"
                raise self._patience.at_end(who, waited_s, each, "workers")
        longest_s = max((waited_s for _, waited_s in waiting), default=0.0)
        return self._patience.look(f"{len(waiting)} of {self.num_members()} producers have", longest_s)

    def draining(self) -> list[int]:
        """The producers whose node was told to end. Nothing is asked of this process' own: it would end as well."""
        there = {
            member.worker: member.opened.node_id
            for member in self._members
            if member.state is State.WORKING and member.opened is not None and member.opened.node_id != self._node_id
        }
        nodes = draining_nodes() if there else set()
        return [worker for worker, node_id in there.items() if node_id in nodes]

    def ask(self, worker: int) -> None:
        """Have it reported which batches a producer makes. An answer that does not come is not waited for."""
        if self._members[worker].state is State.WORKING:
            self._members[worker].ask(self._post)

    def node(self, worker: int) -> str:
        """The node of a producer that works."""
        return self._members[worker].node_id or ""

    def hangs(self, worker: int, waited_s: float) -> Down:
        """The news that a producer has not answered for so long: it is taken for lost."""
        return Down(worker, self._members[worker].life, HangError(f"it has not answered for {waited_s:.0f} s"))

    def is_connected(self) -> bool:
        """Whether this process still has the connection to Ray to which the producers belong."""
        return connection() == self._connection

    def processes(self) -> list[Opened]:
        """The processes of the producers that take tickets now. Any thread may ask."""
        opened = [member.opened for member in self._members if member.state is State.WORKING]
        return [one for one in opened if one is not None]

    def working(self) -> list[int]:
        """The producers that take tickets now."""
        return [member.worker for member in self._members if member.state is State.WORKING]

    def gone(self) -> dict[int, str]:
        """The producers that were lost and may not be replaced now, and what is said of that."""
        now = time.monotonic()
        return {
            member.worker: f"{member.restarts}: "
            + ("it is not replaced" if member.due is None else f"it is replaced in {max(member.due - now, 0.0):.0f} s")
            for member in self._members
            if member.state is State.GONE
        }

    def describe(self, worker: int) -> str:
        """A producer's number, node and process, for messages."""
        return str(self._members[worker])

    def close(self) -> None:
        """End every producer process and wait until it is gone."""
        held = []
        connected = self.is_connected()
        if connected:
            self._await_births()
            self.rest()
        for member in self._members:
            if member.actor is not None and connected:
                ray.kill(member.actor)
                if member.held is not None:
                    held.append(member.held)
            if member.state is not State.DORMANT:
                member.let_go(State.GONE)
        if connected:
            concurrent.futures.wait(held, timeout=END_TIMEOUT_S)

    def rest(self) -> None:
        """Let the producers that work finish the batches in their hands, where that takes no longer than a moment."""
        idle = self._links.under_way()
        for member in self._members:
            if member.state is State.WORKING and not self._rests:
                member.actor.rest.remote()
                idle.extend(member.actor.be_idle.remote() for _ in range(self.num_threads))
        self._rests = True
        if idle:
            ray.wait(idle, num_returns=len(idle), timeout=IDLE_TIMEOUT_S)

    def _await_births(self) -> None:
        """Let the producers that were just asked for come up: see `cluster.BIRTH_S`."""
        born_by = time.monotonic() - BIRTH_S
        unborn = {
            member.opening: member.since - born_by
            for member in self._waiting()
            if member.opening is not None and member.since > born_by
        }
        concurrent.futures.wait(unborn, timeout=max(unborn.values(), default=0.0))

    def _waiting(self) -> list[Member]:
        return [member for member in self._members if member.state is State.WAITING]

    def _launch_due(self, now: float) -> None:
        for member in self._members:
            if member.state is State.GONE and member.due is not None and member.due <= now:
                member.due = member.restarts.next(now)
                self._await_life(member, now)
            if member.state is State.WAITING and member.due is not None and member.due <= now:
                self._launch(member)

    def _await_life(self, member: Member, now: float) -> None:
        """A lost producer gets another life, once that is due."""
        member.life += 1
        member.let_go(State.WAITING)
        member.opened = None
        member.since = now

    def _launch(self, member: Member) -> None:
        taken = Counter(
            other.node_id for other in self._members if other.actor is not None and other.node_id is not None
        )
        node_id, options = self._spread.choose(taken, member.node_id)
        actor = self._actor_class.options(**options).remote(
            member.worker, self._hides_gpus, self.num_threads, self._options.compression, self._node_id
        )
        member.launch(actor, node_id, self._post)
