"""Every error rayfeed raises of its own accord, in one tree.

    RayfeedError
    +-- BatchError (ValueError)        a batch that cannot be fed: what was found, and where it was made
    +-- SourceError (ValueError)       a source that cannot be used or sent, known before anything starts
    +-- OptionError (ValueError)       an argument or option that cannot hold
    +-- PlacementError (RuntimeError)  no node can, or did in time, take an actor
    +-- ProducerDiedError (RuntimeError)  producers were lost and the stream cannot go on without them
    +-- StoreFullError (RuntimeError)     the object store, and the disk behind it, stayed full
    +-- TrainerDiedError (RuntimeError)   the trainer's process was lost
    +-- TrainerBusyError (RuntimeError)   a trainer was asked for a second call at once
    +-- CheckpointError (ValueError)      a file that is no checkpoint of rayfeed's, or not a whole one
    +-- FeedClosedError (RuntimeError)    a feed was used after `close()`: the caller's doing, not a failure
    +-- InternalError (AssertionError)    rayfeed broke its own rules: always a bug in rayfeed
    +-- RemoteTraceback                never raised: the cause of an error that was raised in another process

An exception of the user's own code (source, callback, model) is none of these: it arrives with its own type and
message, and a `RemoteTraceback` as its cause. All classes take one message, so that all of them can be pickled.
"""


class RayfeedError(Exception):
    """Root of rayfeed's own errors; not of exceptions raised in user code."""


class BatchError(RayfeedError, ValueError):
    """A batch that cannot be fed. Not an error of the code that made it: that one keeps its own type."""


class SourceError(RayfeedError, ValueError):
    """A source that cannot be used, or cannot travel to a producer. Not about one batch."""


class OptionError(RayfeedError, ValueError):
    """An argument or option that cannot hold. Not about a source, which is a `SourceError`.

    Raised before anything is started, unless only the data can tell (a class without a `class_weight`), or the
    consumer's node (`max_queue_bytes`, `checkpoint_dir`): then before a producer is.
    """


class PlacementError(RayfeedError, RuntimeError):
    """No node can take an actor, or none did in time. Not raised for actors that ran and died."""


class ProducerDiedError(RayfeedError, RuntimeError):
    """Producers were lost and the stream cannot continue. Not raised for user exceptions, which cost no producer."""


class StoreFullError(RayfeedError, RuntimeError):
    """There was no room for batches for too long, in the object store and on disk. Not a bound that cannot hold, which
    is an `OptionError` before anything is made.
    """


class TrainerDiedError(RayfeedError, RuntimeError):
    """The trainer's process was lost. Not raised for exceptions of the model or of callbacks."""


class TrainerBusyError(RayfeedError, RuntimeError):
    """A trainer was asked for a call while it carries out another. Not a failure of either: the first one goes on."""


class CheckpointError(RayfeedError, ValueError):
    """A file that is no checkpoint of rayfeed's, or not a whole one; or another trainer saves to the directory too.

    Not one of another training, from which this one was to go on: an `OptionError`.
    """


class FeedClosedError(RayfeedError, RuntimeError):
    """A feed was used after it was closed. Not the end of a stream, which is `StopIteration`."""


class InternalError(RayfeedError, AssertionError):
    """rayfeed broke its own rules. Always a bug in rayfeed, never in user code: please report it."""


class RemoteTraceback(RayfeedError):  # noqa: N818 - it is a cause, and never raised as an error
    """The traceback of another process, as text. Never raised: it is the `__cause__` of what is."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text.rstrip("\n")
