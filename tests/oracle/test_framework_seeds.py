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


@tf.function
def frozen(images):
    return images + tf.random.uniform(tf.shape(images))


@tf.function
def given(images, seed):
    return images + tf.random.stateless_uniform(tf.shape(images), seed)


class InGraphs(rayfeed.Sequence):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return frozen(tf.zeros((1, 3))).numpy(), None


class GivenSeeds(InGraphs):
    def __getitem__(self, index):
        pipeline = tf.data.Dataset.from_tensors(tf.zeros((1, 3))).map(lambda x: x + tf.random.uniform(()))
        return given(next(iter(pipeline)), tuple(rayfeed.rng().integers(2**31, size=2).tolist())).numpy(), None


def passes(source, workers, seed):
    with rayfeed.Feed(source, workers, use_multiprocessing=True, seed=seed) as feed:
        return [inputs.tolist() for _ in range(2) for inputs, _ in feed]


def test_numbers_that_a_graph_draws_by_itself_are_told_of_and_those_it_is_given_are_the_batchs_own():
    with pytest.warns(UserWarning, match=r"source draws random numbers in frozen\(\), which TensorFlow") as told:
        passes(InGraphs(), 2, 3)
    assert len(told) == 1
    assert "the same in every batch of a producer and differ between producers, although" in str(told[0].message)
    passes(InGraphs(), 1, None)  # without a seed nothing begins anew, and nobody is told
    batches = passes(GivenSeeds(), 1, 3)
    assert batches == passes(GivenSeeds(), 3, 3)
    assert len({str(batch) for batch in batches}) == 16


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


def test_torchs_stream_is_left_to_training_where_user_code_runs_beside_it():
    torch = pytest.importorskip("torch")
    torch.manual_seed(8)
    undisturbed = torch.rand(2).tolist() + torch.rand(2).tolist()
    torch.manual_seed(8)
    found = torch.rand(2).tolist()
    with seeded(3, 1, 4, beside=True):
        found += torch.rand(2).tolist()
    assert found == undisturbed


def test_threads_that_draw_from_tensorflow_in_spite_of_a_seed_are_told_so():
    with (
        rayfeed.Feed(Draws(), 3, seed=3) as feed,
        pytest.warns(UserWarning, match=r"source draws from (random and )?tensorflow\.random in several"),
    ):
        list(feed.take(30))


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
