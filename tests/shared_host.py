"""The process of a trainer that many tests share. That process imports this file: it needs no framework."""

import gc

import ray

from rayfeed.queue.keeping import Keeper
from rayfeed.trainer.actor import TrainerHost


class SharedHost(TrainerHost):
    """A trainer's process that begins anew when its caller is done with it, instead of being ended."""

    @ray.method(concurrency_group="work")
    def vacate(self):
        """End the producers, and forget the model and what the jobs left of theirs."""
        self._keeper.close()
        self._keeper = Keeper()
        self._models = self._relay = self._streams = None
        gc.collect()
        gc.freeze()  # what is left are TensorFlow's own objects, half a million: the next time need not look at them
