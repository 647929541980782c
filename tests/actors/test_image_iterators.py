"""D4: Keras' image iterators, unmodified: every sample once a pass, whoever makes the batches."""

import numpy as np
import pytest

import rayfeed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*scipy.ndimage:DeprecationWarning"),  # Keras' import of it
]

NUM_IMAGES, BATCH = 22, 4


@pytest.fixture(scope="module")
def generator_class():
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator


def flow(generator, **arguments):
    """Image i holds the number i everywhere, and so does its target."""
    numbers = np.arange(NUM_IMAGES)
    images = np.broadcast_to(numbers[:, None, None, None], (NUM_IMAGES, 6, 6, 1)).astype("float32")
    return generator.flow(images, numbers, batch_size=BATCH, **arguments)


def samples(batches):
    """The numbers in a pass' batches, once it is sure that images and targets belong together."""
    found = []
    for images, targets in batches:
        assert np.array_equal(images[:, 0, 0, 0].astype(int), targets)
        found += targets.tolist()
    return found


def test_each_image_comes_once_a_pass_in_a_fresh_order(generator_class):
    """In line; over threads and processes: conformance/test_keras_datasets."""
    source = flow(generator_class(), shuffle=True)
    with rayfeed.Feed(source, workers=0) as feed:
        passes = [samples(feed) for _ in range(3)]
    assert [sorted(one) for one in passes] == [list(range(NUM_IMAGES))] * 3
    assert len({tuple(one) for one in passes}) == 3
    assert source.index_array is None  # the caller's own is as it was


def test_one_that_was_looked_at_before_and_so_has_begun_serves_as_well(generator_class):
    source = flow(generator_class(), shuffle=True)
    next(source)
    next(source)
    with rayfeed.Feed(source, 2) as feed:
        assert sorted(samples(feed)) == list(range(NUM_IMAGES))


def augmented(generator_class, seed, **arguments):
    generator = generator_class(horizontal_flip=True, width_shift_range=2, brightness_range=(0.5, 1.5))
    rng = np.random.default_rng(0)
    return generator.flow(
        rng.uniform(0, 255, (NUM_IMAGES, 6, 6, 3)), np.arange(NUM_IMAGES), batch_size=BATCH, seed=seed, **arguments
    )


def two_passes(source, workers, use_multiprocessing, **arguments):
    with rayfeed.Feed(source, workers, use_multiprocessing, **arguments) as feed:
        return [[(images.copy(), targets.tolist()) for images, targets in feed] for _ in range(2)]


def assert_equal(one, other):
    for of_one, of_other in zip(one, other, strict=True):
        assert [targets for _, targets in of_one] == [targets for _, targets in of_other]
        for (images, _), (others, _) in zip(of_one, of_other, strict=True):
            np.testing.assert_array_equal(images, others)


def test_the_iterators_own_seed_gives_the_same_batches_for_any_number_of_processes(generator_class):
    inline, other = (
        two_passes(augmented(generator_class, seed=3, shuffle=True), workers, use_multiprocessing=True)
        for workers in (0, 2)
    )
    assert_equal(inline, other)
    plain = augmented(generator_class, seed=3, shuffle=True)
    loop = [plain[index] for index in range(len(plain))]
    assert [targets for _, targets in inline[0]] == [targets.tolist() for _, targets in loop]  # Keras' own order
    for (images, _), (expected, _) in list(zip(inline[0], loop, strict=True))[1:]:  # and, but for the first, changes
        np.testing.assert_array_equal(images, expected)


def test_unshuffled_it_equals_a_plain_loop_over_the_passes_to_the_last_bit(generator_class):
    source, plain = (augmented(generator_class, seed=3, shuffle=False) for _ in range(2))
    expected = []
    for _ in range(2):
        expected.append([(images, targets.tolist()) for images, targets in (plain[i] for i in range(len(plain)))])
        plain.on_epoch_end()
    assert_equal(two_passes(source, 2, use_multiprocessing=True), expected)


def test_the_seed_of_the_call_decides_order_and_changes_where_the_iterator_has_none(generator_class):
    inline, other = (
        two_passes(augmented(generator_class, None, shuffle=True), workers, use_multiprocessing=True, seed=5)
        for workers in (0, 2)
    )
    assert_equal(inline, other)


def test_images_from_a_directory_come_once_each(generator_class, tmp_path):
    from PIL import Image

    for number in range(14):
        folder = tmp_path / ("even" if number % 2 == 0 else "odd")
        folder.mkdir(exist_ok=True)
        Image.new("L", (5, 5), 10 * number).save(folder / f"{number}.png")
    source = generator_class().flow_from_directory(
        tmp_path, target_size=(5, 5), color_mode="grayscale", class_mode="binary", batch_size=4, shuffle=True
    )
    with rayfeed.Feed(source, 2) as feed:
        for _ in range(2):
            batches = list(feed)
            numbers = np.concatenate([images[:, 0, 0, 0] for images, _ in batches]).astype(int) // 10
            assert sorted(numbers.tolist()) == list(range(14))
            assert (np.concatenate([targets for _, targets in batches]) == numbers % 2).all()


def test_two_flows_zipped_as_images_and_masks_stay_together(generator_class):
    """As in Keras' documentation of image segmentation: the zip is an endless stream."""

    def flows():
        generator = generator_class(horizontal_flip=True)
        rng = np.random.default_rng(0)
        return (generator.flow(rng.uniform(0, 255, (10, 6, 6, 1)), batch_size=BATCH, seed=1) for _ in range(2))

    source, plain = (zip(*flows(), strict=True) for _ in range(2))
    with rayfeed.Feed(source, workers=2) as feed:
        found = list(feed.take(9))
    assert len(found) == 9
    for pair, expected in zip(found, plain, strict=False):
        np.testing.assert_array_equal(pair, expected)


@pytest.mark.parametrize(("count", "workers", "others"), [(2, 2, 0), (8, 0, 2)])
def test_a_feed_of_one_goes_on_with_the_next_batch_in_the_saved_seeds_order(count, workers, others, generator_class):
    with rayfeed.Feed(flow(generator_class(), shuffle=True), workers, use_multiprocessing=True, seed=9) as feed:
        first = samples(feed.take(count))
        state = feed.state_dict()
        rest = samples(feed.take(12 - count))
    with rayfeed.Feed(flow(generator_class(), shuffle=True), others, use_multiprocessing=True) as feed:
        feed.load_state_dict(state)
        assert samples(feed.take(12 - count)) == rest
    assert sorted(first + rest) == sorted([*range(NUM_IMAGES)] * 2)
