"""One training, whole and in parts: what tests of resumed trainings are made of."""

import keras

import rayfeed
from tests.oracle.sources import OwnError

PROCESSES = {"workers": 2, "use_multiprocessing": True}
THREADS = {"workers": 3}
IN_LINE = {"workers": 0}


class Steps(keras.callbacks.Callback):
    """Takes down each step and hook, and fails once it has seen that step of that epoch."""

    def __init__(self, at=None):
        super().__init__()
        self.at = at
        self.seen = []
        self.steps = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.steps.append(self.params["steps"])

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((self.epoch, batch, logs["loss"]))
        if (self.epoch, batch) == self.at:
            raise OwnError(1, detail="interrupted")

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append((self.epoch, "test", batch, logs["loss"]))
        if (self.epoch, "test", batch) == self.at:
            raise OwnError(1, detail="interrupted")


class Resumed:
    """One training, whole and in parts."""

    def __init__(self, make_model, same_state, directory):
        self.make_model = make_model
        self.same_state = same_state
        self.directory = str(directory)

    def options(self, **options):
        return rayfeed.TrainerOptions(checkpoint_dir=self.directory, **options)

    def fit(self, source, *arguments, trainer, at=None, model=None, callbacks=(), **options):
        """Train a new model; what the callback saw, History, the model."""
        steps = Steps(at)
        model = model or self.make_model()
        arguments = {"seed": 3, "verbose": 0, "epochs": 3, **options}
        if "validation_data" in arguments:
            arguments["validation_data"] = arguments["validation_data"]()
        try:
            history = rayfeed.fit_generator(
                model, source(), callbacks=[steps, *callbacks], trainer=trainer, **arguments
            ).history
        except OwnError:
            assert at is not None
            history = None
        return steps, history, model

    def check(self, source, at, every, *, before=IN_LINE, after=IN_LINE, make_callbacks=list, **options):
        """Interrupt a training, go on with it, and compare it with one that was not interrupted."""
        options |= {"source": source}
        whole, history, model = self.fit(trainer="driver", callbacks=make_callbacks(), **IN_LINE, **options)
        saving = self.options(save_every=every)
        first, none, _ = self.fit(trainer=saving, at=at, callbacks=make_callbacks(), **before, **options)
        assert none is None
        assert first.seen == whole.seen[: len(first.seen)]
        callbacks = make_callbacks()
        resuming = self.options(resume=True, save_every=every)
        second, resumed, ours = self.fit(trainer=resuming, callbacks=callbacks, **after, **options)
        assert resumed == history
        self.same_state(ours, model)
        assert second.seen == whole.seen  # those before the checkpoint come from there; none came twice
        return whole, second, callbacks
