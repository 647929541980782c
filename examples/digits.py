"""Train a small CNN on handwritten digits that four processes augment while it learns.

The data are scikit-learn's 1,797 real digits of 8 x 8 pixels. `AugmentedDigits` is an ordinary Keras Sequence; rayfeed
runs it in producer processes, on this machine or wherever the Ray cluster has room. Writes a picture of what the
producers make and of how the training went.

    python examples/digits.py [--epochs 12] [--workers 4] [--output digits.png]
"""

import argparse
import math
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rayfeed

REQUIRED_ACCURACY = 0.95


class Digits(rayfeed.Sequence):
    """Images and labels in batches, as they are."""

    def __init__(self, images, labels, batch_size=32):
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.order = np.arange(len(images))

    def __len__(self):
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images = np.stack([self.prepare(image) for image in self.images[rows]])
        return images[..., np.newaxis].astype("float32"), self.labels[rows]

    def prepare(self, image):
        return image


class AugmentedDigits(Digits):
    """The same, but every digit is turned, moved and roughened a little, and every pass has a new order."""

    def prepare(self, image):
        image = ndimage.rotate(image, np.random.uniform(-12, 12), reshape=False, order=1)
        image = ndimage.shift(image, np.random.uniform(-0.75, 0.75, size=2), order=1)
        return np.clip(image + np.random.normal(0, 0.05, size=image.shape), 0, 1)

    def on_epoch_end(self):
        np.random.shuffle(self.order)


def load_data():
    """Four arrays: images in [0, 1] and labels to train on, then those kept for validation."""
    pixels, labels = load_digits(return_X_y=True)
    # One empty pixel around each image, so that a shift pushes nothing out of it.
    images = np.pad(pixels.reshape(-1, 8, 8) / 16, ((0, 0), (1, 1), (1, 1)))
    x_train, x_val, y_train, y_val = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    return x_train, y_train, x_val, y_val


def build_model():
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def draw(train, history, path):
    """Left: one batch as the producers make it. Right: loss and accuracy over the epochs."""
    figure = plt.figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1], squeeze=False)[0]

    images, labels = train[0]
    left.suptitle("Augmented digits, with their labels")
    for axes, image, label in zip(left.subplots(5, 5).flat, images, labels, strict=False):
        axes.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(label, fontsize=10, pad=2)
        axes.set_axis_off()

    right.suptitle("Training")
    epochs = [epoch + 1 for epoch in history.epoch]
    above, below = right.subplots(2, 1, sharex=True)
    for axes, name in [(above, "loss"), (below, "accuracy")]:
        axes.plot(epochs, history.history[name], "o-", markersize=4, label="train (augmented)")
        axes.plot(epochs, history.history[f"val_{name}"], "s-", markersize=4, label="validation (as they are)")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))

    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4, help="producer processes (default: 4)")
    parser.add_argument("--output", default="digits.png", help="where the picture goes (default: digits.png)")
    options = parser.parse_args()

    x_train, y_train, x_val, y_val = load_data()
    train = AugmentedDigits(x_train, y_train)
    validation = Digits(x_val, y_val)

    history = rayfeed.fit_generator(
        build_model(),
        train,
        epochs=options.epochs,
        validation_data=validation,
        workers=options.workers,
        use_multiprocessing=True,
        verbose=2,
    )

    draw(train, history, options.output)

    feed = history.feed_stats
    print(
        f"The trainer waited {feed.wait_s:.1f} s for data in {feed.run_s:.1f} s of training, {feed.first_wait_s:.1f} s "
        f"of them for the first batch: {feed.batches} batches ({feed.bytes / 1e6:.1f} MB), on which "
        f"{feed.num_producers} producers worked {feed.produce_s:.1f} s together."
    )
    print(f"The picture is in {options.output}.")

    accuracy = history.history["val_accuracy"][-1]
    print(f"Validation accuracy: {accuracy:.3f}")
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"digits.py: that is below {REQUIRED_ACCURACY}, so something is wrong; or use more --epochs")


if __name__ == "__main__":
    main()
