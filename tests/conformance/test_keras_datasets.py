"""C7 and D4 for what only Keras' own data sets have: `on_epoch_begin`, and an order that is drawn where it is asked."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS, trained
from tests.sources import Numbered, batch

each_way = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


def with_both_hooks(log):
    """Shuffles in `on_epoch_begin`; batches tell which pass they are of."""

    class Begins(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.begun = self.ended = 0

        def __len__(self):
            return 4

        def __getitem__(self, index):
            log.add("batch", self.begun, self.ended)
            return batch(100 * self.begun + 10 * self.ended + index)

        def on_epoch_begin(self):
            log.add("begin", self.begun, self.ended)
            self.begun += 1

        def on_epoch_end(self):
            log.add("end", self.begun, self.ended)
            self.ended += 1

    return Begins()


@line("C7 begin")
@complaint(
    "keras-team/keras#19749",
    there="batches were asked for before the first epoch began, so that nothing could be prepared for it",
    here="on_epoch_begin runs before the first batch of the first pass is made",
)
@complaint(
    "keras-team/keras#23284",
    there="workers started while on_epoch_begin was still running",
    here="no batch of a pass is made before its on_epoch_begin has returned, and every producer sees its effects",
)
@each_way
def test_on_epoch_begin_runs_once_before_each_pass_and_on_epoch_end_once_after_it(feed, echo, log):
    run = trained(echo, with_both_hooks(log), epochs=3, shuffle=False, **feed)
    assert run.epochs == [[100, 101, 102, 103], [210, 211, 212, 213], [320, 321, 322, 323]]
    lines = log.lines()
    hooks = [[f"begin {place} {place}", f"end {place + 1} {place}"] for place in range(3)]
    assert [line for line in lines if not line.startswith("batch")] == [hook for both in hooks for hook in both]
    for place, (begin, end) in enumerate(hooks):
        made = [number for number, line in enumerate(lines) if line == f"batch {place + 1} {place}"]
        # A producer that is slow to import Keras makes what others have made already, and nobody takes it.
        assert len(made) >= 4
        assert lines.index(begin) < made[0]
        assert made[3] < lines.index(end)
    assert {line for line in lines if line.startswith("batch")} == {"batch 1 0", "batch 2 1", "batch 3 2"}


@line("C7 begin")
def test_validation_data_has_its_on_epoch_begin_before_each_validation(echo, log):
    run = trained(echo, Numbered(2), epochs=2, validation_data=with_both_hooks(log), workers=2)
    assert run.validations == [[100, 101, 102, 103], [210, 211, 212, 213]]


@line("D4 image iterator")
@complaint(
    "argonne-lcf/dlio_benchmark#169",
    there="a second shuffle made samples come twice or never",
    here="Keras' image iterator with shuffle gives each sample once a pass, over any number of processes",
)
@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [True, False])
@each_way
def test_keras_image_iterator_gives_each_sample_once_a_pass(feed, shuffle):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    images = np.arange(22, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32")
    flow = ImageDataGenerator().flow(images, np.arange(22), batch_size=4, shuffle=shuffle)
    with rayfeed.Feed(flow, **feed) as reader:
        passes = [[(x[:, 0, 0, 0].tolist(), y.tolist()) for x, y in reader] for _ in range(2)]
    for batches in passes:
        samples = [sample for _, targets in batches for sample in targets]
        assert sorted(samples) == list(range(22))
        assert [sample for inputs, _ in batches for sample in inputs] == samples
        assert (samples == list(range(22))) == (not shuffle)
    assert (passes[0] == passes[1]) == (not shuffle)


@line("D4 image iterator")
def test_keras_image_iterator_is_a_sequence_with_a_length(echo):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    images = np.arange(10, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32")
    flow = ImageDataGenerator().flow(images, np.arange(10), batch_size=4, shuffle=False)
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.GlobalAveragePooling2D()])
    predictions = rayfeed.predict_generator(model, flow, workers=2, trainer="driver")
    assert predictions[:, 0].tolist() == list(range(10))
