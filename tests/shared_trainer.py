"""One trainer process for many tests, each with a model of its own.

Starting a trainer takes seconds, in which its process imports TensorFlow. Most tests ask what a trainer does and not
how it starts, so they share one. All but the start and the end is the product's own: the model is built there anew for
each test, as for a kept `rayfeed.Trainer` whose model was compiled again. Tests of how trainers start and end have
their own: tests/oracle/test_trainer.py, and in tests/conformance the training, its callbacks, and the scripts.
"""

import keras
import pytest
import ray

from rayfeed.options import TrainerOptions
from rayfeed.trainer import process
from rayfeed.trainer.model_link import ModelLink
from rayfeed.trainer.process import PRODUCERS_TIMEOUT_S
from rayfeed.trainer.remote import RemoteTrainer
from tests.shared_host import SharedHost


class House:
    """The process, and who lives in it: one trainer at a time."""

    def __init__(self):
        self.num_jobs = 0
        self.open()

    def open(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "TrainerHost", SharedHost)
            # It claims nothing: it is there also beside tests that count what is claimed.
            self.owner = RemoteTrainer(keras.Sequential(), TrainerOptions(num_cpus=0, num_gpus=0))
        self.owner._living().wait_until_open()

    def reopen(self):
        """After a test that ended the process: only that one shall fail, and maybe the next."""
        if ray.wait([self.owner._living()._held], timeout=0)[0]:
            self.open()

    def lodge(self, model, options):
        """In the place of `RemoteTrainer`."""
        saving = {"checkpoint_dir": options.checkpoint_dir, "save_every": options.save_every, "resume": options.resume}
        if options == TrainerOptions(**saving):
            return Lodger(model, options, self)
        return RemoteTrainer(model, options)

    def close(self):
        self.owner.close()


class Lodger(RemoteTrainer):
    """A trainer in a process that others had before it and will have after it."""

    def __init__(self, model, options, house):
        vars(self).update(vars(house.owner), _link=ModelLink(model), _options=options, _own_runs=set())
        self._house = house
        self._was_given_up = False

    @property
    def _num_jobs(self):
        """The process' own count: it does not heed what is said of earlier jobs."""
        return self._house.num_jobs

    @_num_jobs.setter
    def _num_jobs(self, number):
        self._house.num_jobs = number

    def close(self):
        process, self._process = self._process, None
        if process is not None and not self._was_given_up:
            ray.get(process.actor.vacate.remote(), timeout=PRODUCERS_TIMEOUT_S)

    def _abort(self, *arguments):
        """The caller gave up, which ends the process: a test that does so needs one of its own, and fails here."""
        self._was_given_up = True
        try:
            super()._abort(*arguments)
        finally:
            self._house.close()
