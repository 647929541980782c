"""G1: the frameworks' own random streams follow from seed, pass and index too, where user code has imported them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rayfeed
from rayfeed.source.seeding import seed_batch, seeded
from tests.conftest import assert_runs


def drawn():
    """Numbers from operations that nobody gave a seed."""
    return tf.random.uniform((3,)).numpy().tolist() + np.array(keras.random.uniform((3,))).tolist()


class Draws(rayfeed.Sequence):
    """Batches of random numbers, drawn a different number of times for each index."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        for _ in range(index):
            drawn()
        return np.array(drawn(), "float32")[None], None


def test_a_batch_draws_the_same_from_tensorflow_and_keras_in_any_producer():
    expected = []
    for index in range(6):
        seed_batch(3, 0, index)
        expected.append(Draws()[index][0].tolist())
    with rayfeed.Feed(Draws(), 2, use_multiprocessing=True, seed=3) as feed:
        assert [inputs.tolist() for inputs, _ in feed] == expected
    assert len({value for batch in expected for value in batch[0]}) == 36


def test_torch_draws_the_same_for_the_same_batch_and_in_line_its_stream_goes_on_as_it_was():
    torch = pytest.importorskip("torch")
    seed_batch(3, 1, 4)
    expected = torch.rand(2).tolist()
    seed_batch(3, 1, 5)
    assert torch.rand(2).tolist() != expected
    torch.manual_seed(8)
    undisturbed = torch.rand(2).tolist()
    torch.manual_seed(8)
    with seeded(3, 1, 4):
        assert torch.rand(2).tolist() == expected
    assert torch.rand(2).tolist() == undisturbed


def test_in_line_keras_is_seeded_and_restored_and_tensorflow_left_alone():
    """A seed for TensorFlow would make what is random in a model begin anew with each batch."""

    @tf.function
    def noise():
        return tf.random.uniform(())

    def streams():
        return float(noise()), float(keras.random.uniform(()))

    keras.utils.set_random_seed(5)
    undisturbed = [streams(), streams()]
    keras.utils.set_random_seed(5)
    found = [streams()]
    with seeded(3, 1, 4):
        inside = float(keras.random.uniform(()))
    found.append(streams())
    assert found == undisturbed
    with seeded(3, 1, 4):
        assert float(keras.random.uniform(())) == inside
    with seeded(3, 1, 5):
        assert float(keras.random.uniform(())) != inside


def test_a_layers_own_generator_is_the_users_to_set():
    flip = keras.layers.RandomFlip("horizontal", seed=1)
    images = np.arange(64, dtype="float32").reshape(16, 1, 4, 1)

    def flipped(*, sets_state):
        seed_batch(3, 0, 0)
        if sets_state:
            flip.generator.state.assign([np.random.randint(2**31), 0])  # noqa: NPY002 - seeded for the batch
        return np.array(flip(images, training=True)).tolist()

    assert flipped(sets_state=False) != flipped(sets_state=False)
    assert flipped(sets_state=True) == flipped(sets_state=True)


def test_seeding_imports_no_framework():
    output = assert_runs(
        "import sys\n"
        "from rayfeed.source.seeding import seed_batch, seeded\n"
        "seed_batch(1, 2, 3)\n"
        "with seeded(1, 2, 3):\n"
        "    print({'tensorflow', 'torch', 'keras'} & set(sys.modules))\n"
    )
    assert output == "set()\n"
