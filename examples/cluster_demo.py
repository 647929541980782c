"""Train over four hosts and lose one in mid-epoch.

The hosts are namespaces of this machine (`cluster/local/hosts.sh`, which wants root), their links are shaped to a
gigabit. Host 0 has the trainer, the others have the producers, which augment the digits of `digits.py`. In the middle
of an epoch all processes of a host with producers are killed at once, as on a spot machine that is taken away. Training
goes on with the very next batch. At the end this says what happened, removes all that it made, and fails where a step,
the accuracy or the loss itself is missing.

    sudo make cluster-demo
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import ray
from digits import REQUIRED_ACCURACY, AugmentedDigits, Digits, build_model, load_data

import rayfeed

FOLDER = Path(__file__).resolve().parent
HOSTS = FOLDER.parent / "cluster" / "local" / "hosts.sh"
NUM_HOSTS = 4
LINK = "1gbit"
WORKERS = 4
EPOCHS = 10
LOST_IN = 3  # the epoch, from 0, in the middle of which a host is lost
END_S = 60  # how long the training's process may take to end


class NotedDigits(AugmentedDigits):
    """Augmented digits of which every batch leaves a line: when it was made, in a file named after the host."""

    folder = "."

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        with Path(self.folder, socket.gethostname()).open("a") as file:
            file.write(f"{time.time()}\n")
        return batch


class LosesAHost(keras.callbacks.Callback):
    """Runs beside the caller: tells when the moment has come, and waits until the host is gone."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (LOST_IN, self.steps // 2):
            tell(batch=batch + 1, steps=self.steps)
            sys.stdin.readline()


class Clock(keras.callbacks.Callback):
    """Runs in the trainer, and notes when each step was done."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.time())


def train(folder):
    """What runs on host 0. It tells by lines of JSON."""
    # The other hosts have nothing of this folder but what is sent to them.
    ray.init(runtime_env={"working_dir": str(FOLDER)}, logging_level=logging.ERROR, log_to_driver=False)
    x_train, y_train, x_val, y_val = load_data()
    source, clock = NotedDigits(x_train, y_train), Clock()
    source.folder = folder
    history = rayfeed.fit_generator(
        build_model(),
        source,
        epochs=EPOCHS,
        validation_data=Digits(x_val, y_val),
        callbacks=[clock, rayfeed.on_driver(LosesAHost(len(source)))],
        workers=WORKERS,
        use_multiprocessing=True,
        verbose=0,
        producers=rayfeed.ProducerOptions(num_cpus=1),
        trainer=rayfeed.TrainerOptions(num_cpus=1, resources={"host0": 1}),
    )
    feed = history.feed_stats
    tell(
        times=clock.times,
        expected=EPOCHS * len(source),
        accuracy=history.history["val_accuracy"],
        lost=feed.lost_producers,
        remade=feed.remade_tickets,
    )


def tell(**found):
    print(json.dumps(found), flush=True)


def heard(process):
    """What the training tells next; what else is printed there is passed on."""
    for line in process.stdout or ():
        if line.startswith("{"):
            return json.loads(line)
        print(line, end="", flush=True)
    sys.exit("cluster_demo.py: the training ended early; what it said is above")


def hosts(*words):
    """Run the script. Where this is interrupted on the way, it first removes what it has made."""
    process = subprocess.Popen([HOSTS, *map(str, words)])  # noqa: S603 - this repository's script
    try:
        code = process.wait()
    finally:
        process.terminate()  # does nothing where it has ended
        process.wait()
    if code:
        raise subprocess.CalledProcessError(code, process.args)


@contextmanager
def cluster():
    """The hosts, which are removed on every way out."""
    hosts("up", NUM_HOSTS)
    try:
        hosts("shape", LINK)
        yield
    finally:
        hosts("down")


def made(folder, moment):
    """Host -> the batches that it made until a moment, and after it."""
    counts = {}
    for path in sorted(Path(folder).iterdir()):
        times = np.array([float(line) for line in path.read_text().split()])
        counts[path.name] = int((times <= moment).sum()), int((times > moment).sum())
    return counts


def run(folder):
    """Start the training, kill a host when it says so; the host, the moment and what the training found."""
    command = [HOSTS, "exec", "0", sys.executable, __file__, folder]
    with subprocess.Popen(  # noqa: S603 - as above
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            step = heard(process)
            busy = {host: until for host, (until, _) in made(folder, time.time()).items() if not host.endswith("-0")}
            lost = max(busy, key=lambda host: busy[host])
            print(f"Epoch {LOST_IN + 1}, step {step['batch']} of {step['steps']}: {lost} is killed.", flush=True)
            hosts("kill", lost.rpartition("-")[2])
            moment = time.time()
            print("go on", file=process.stdin, flush=True)
            found = heard(process)
            process.wait(END_S)
        finally:
            process.kill()
    return lost, moment, found


def report(folder, lost, moment, found):
    """Say what happened. Returns what should not have."""
    times = np.array(found["times"])
    steps, after = np.diff(times), times[1:] > moment
    counts = made(folder, moment)
    print(f"\n{found['lost']} of {WORKERS} producers were lost with it; {found['remade']} orders went to others.")
    print(
        f"{len(times)} of {found['expected']} steps were made, one in {1000 * np.median(steps):.0f} ms; after the loss "
        f"the longest took {steps[after].max():.1f} s."
    )
    print("Batches made    before    after")
    for host, (until, since) in counts.items():
        print(f"  {host:12} {until:8} {since:8}")
    print("Validation accuracy by epoch: " + " ".join(f"{value:.3f}" for value in found["accuracy"]))
    wrong = {
        "a step is missing": len(times) != found["expected"],
        "no producer was lost": not found["lost"],
        f"{lost} was killed and made batches afterwards": counts[lost][1],
        "the others made none": not any(since for _, since in counts.values()),
        f"the accuracy is below {REQUIRED_ACCURACY}": found["accuracy"][-1] < REQUIRED_ACCURACY,
    }
    return [what for what, is_so in wrong.items() if is_so]


def main():
    if os.geteuid() != 0:
        sys.exit("cluster_demo.py: hosts are made of namespaces, which only root may make: sudo make cluster-demo")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the hosts are removed then too
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, cluster():  # of /tmp each host has its own
        print(f"{NUM_HOSTS} hosts are up after {time.monotonic() - began:.0f} s, with links of {LINK}.", flush=True)
        wrong = report(folder, *run(folder))
    print(f"All of it was removed again, after {time.monotonic() - began:.0f} s.")
    if wrong:
        sys.exit("cluster_demo.py: " + "; ".join(wrong))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder]:
            train(folder)
        case _:
            main()
