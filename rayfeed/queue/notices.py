"""What the consumer is warned of, once for each stream: that a source does what its user cannot want.

Found in what the producers' answers say of themselves; the consumer goes on. The first text is Keras' own, which gives
it to everybody with several copies of a generator; here it comes where no copy asked which one it is (contract C11).
"""

from __future__ import annotations

from rayfeed.producer.messages import Run, SourceRecord, Ticket
from rayfeed.producer.twins import NUM_COMPARED, Twins

DUPLICATES = (
    "Using a generator with `use_multiprocessing=True` and multiple workers may duplicate your data: each of the "
    "{copies} producers runs its own copy of {name}, and none of them asked which copy it is. Share the data out by "
    "rayfeed.get_worker_info(), or use a rayfeed.Sequence."
)

TWINS = (
    "Producers {one} and {other} made the same batches: the first {count} of each one's copy of {name} are equal, byte "
    "for byte. What several copies make is fed several times. Let each copy take its share of the data by "
    "rayfeed.get_worker_info(), draw random numbers from rayfeed.rng(), or use a rayfeed.Sequence."
)

SHARED_STREAMS = (
    "{name} draws from {streams} in several threads of one producer. Threads share these streams, so that the batches "
    "are other ones in every run, although a seed was given. Draw from rayfeed.rng(), which each batch has for itself, "
    "or use use_multiprocessing=True."
)

GRAPHS = (
    "{name} draws random numbers in {functions}, which TensorFlow runs as a graph. A graph keeps the seed that it was "
    "traced with: these numbers are the same in every batch of a producer and differ between producers, although a "
    "seed was given. Draw them by tf.random.stateless_uniform and its kin, with two numbers of rayfeed.rng() as a seed "
    "that the function takes as an argument."
)


class Notices:
    """What was heard of one stream, and what was said of it. Used by the conductor's thread alone.

    Args:
        record: The stream's source.
    """

    def __init__(self, record: SourceRecord) -> None:
        self._record = record
        has_copies = record.num_lanes > 1 and not record.info.is_sequence
        self._unheard = set(range(record.num_lanes)) if has_copies else set[int]()
        self._asked = False
        self._twins = Twins()
        self._told: set[str] = set()

    def hear(self, ticket: Ticket, run: Run) -> list[str]:
        """Take what an answer says of itself; the warnings that follow from it."""
        found: list[str] = []
        if self._unheard:
            self._asked = self._asked or run.asked
            self._unheard.discard(ticket.lane)
            if not self._unheard and not self._asked:
                found += self._once(DUPLICATES, copies=self._record.num_lanes)
        if run.digests:
            same = self._twins.hear(ticket.lane, ticket.first, run.digests)
            if same is not None:
                found += self._once(TWINS, one=same[0], other=same[1], count=NUM_COMPARED)
        if run.drawn:
            found += self._once(SHARED_STREAMS, streams=" and ".join(run.drawn))
        if run.graphs:
            found += self._once(GRAPHS, functions=" and ".join(f"{name}()" for name in run.graphs))
        return found

    def _once(self, text: str, **values: object) -> list[str]:
        if text in self._told:
            return []
        self._told.add(text)
        return [text.format(name=self._record.name, **values)]
