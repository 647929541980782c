"""Train from a CSV file with the endless generator of Keras' `fit_generator` documentation.

The file is scikit-learn's real `breast_cancer.csv`: a header, then 569 lines of 30 measurements and a diagnosis. The
generator *object* is passed, as in the documentation; rayfeed sends it to a producer process, which opens the file.
Two named inputs and one named output are dicts.

    python examples/csv_lines.py
"""

import math
from importlib.resources import files
from itertools import islice

import keras
import numpy as np

import rayfeed

NUM_ROWS = 569
BATCH_SIZE = 32


# A usual radius, texture, perimeter, area, ..., of which each line has the mean, the standard error and the worst.
USUAL = np.tile([14, 19, 92, 655, 0.1, 0.1, 0.09, 0.05, 0.18, 0.063], 3)


def process_lines(lines):
    """For each line, the ten means, the twenty other measurements, and the diagnosis (1: benign)."""
    table = np.loadtxt(lines, delimiter=",", ndmin=2)
    measurements = np.log(table[:, :30] / USUAL + 0.01)
    return measurements[:, :10], measurements[:, 10:], table[:, 30:]


def generate_arrays_from_file(path):
    while True:
        with open(path) as f:
            next(f)  # the header
            while lines := list(islice(f, BATCH_SIZE)):
                x1, x2, y = process_lines(lines)
                yield ({"input_1": x1, "input_2": x2}, {"output": y})


def build_model():
    input_1 = keras.Input((10,), name="input_1")
    input_2 = keras.Input((20,), name="input_2")
    hidden_1 = keras.layers.Dense(32, activation="relu")(input_1)
    hidden_2 = keras.layers.Dense(32, activation="relu")(input_2)
    hidden = keras.layers.concatenate([hidden_1, hidden_2])
    output = keras.layers.Dense(1, activation="sigmoid", name="output")(hidden)
    model = keras.Model(inputs=[input_1, input_2], outputs=output)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def main():
    path = str(files("sklearn.datasets.data") / "breast_cancer.csv")
    history = rayfeed.fit_generator(
        build_model(),
        generate_arrays_from_file(path),
        steps_per_epoch=math.ceil(NUM_ROWS / BATCH_SIZE),
        epochs=15,
        verbose=2,
    )
    print(f"Accuracy on the file's lines in the last epoch: {history.history['accuracy'][-1]:.3f}")


if __name__ == "__main__":
    main()
