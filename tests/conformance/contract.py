"""The contract's lines as data, and the two marks that tie a test to them.

`test_coverage` reads every test of this folder and fails when a line of `LINES` has none. A line of `NOT_BUILT` is
promised for later: the change that builds it moves it to `LINES` and brings its test.
"""

import pytest

LINES = {
    "A parameters": "The first fourteen parameters keep Keras' names, order, defaults and effect.",
    "A import": "`import rayfeed` imports neither tensorflow, keras nor torch.",
    "A local": "With no Ray running, a call starts a local one.",
    "A join": "Inside a cluster, or with RAY_ADDRESS, a call joins it.",
    "A evaluate": "evaluate_generator returns what model.evaluate returns.",
    "A predict": "predict_generator returns what model.predict returns.",
    "A Trainer": "A Trainer keeps its actor alive across calls.",
    "A Feed": "A Feed gives the stream that training gets to any other consumer.",
    "A Sequence": "rayfeed.Sequence, Keras' PyDataset and any object with the two methods are Sequences.",
    "A get_worker_info": "In a producer it tells its number, how many there are, and a seed; elsewhere it is None.",
    "A rng": "rayfeed.rng() is the random generator of the batch being made.",
    "A state": "feed.state_dict() and load_state_dict() continue at the next batch.",
    "A install": "rayfeed.install() puts the three methods back on keras.Model.",
    "B1": "A batch is (inputs, targets[, weights]), each an array, a list or a dict; predict takes bare inputs.",
    "B2": "Arrays of one batch that differ in length are a ValueError with each name and length.",
    "B3": "Batches may differ in length, and in other axes where the model allows it.",
    "B4": "Any fixed-width dtype and layout arrives as it left; what has no length or width is refused.",
    "B5": "What is no batch is a ValueError that says what was found, cut to 100 characters, and who made it.",
    "B6": "Delivered arrays are read-only; copy=True gives private ones.",
    "C1": "A generator needs steps_per_epoch and is one endless stream over the epochs.",
    "C2": "A generator that ends early is trained on, warned of, and ends the training after that epoch.",
    "C3": "Without steps_per_epoch an epoch is one pass of a Sequence, its length read again after each.",
    "C4": "With steps_per_epoch a Sequence is one endless stream of passes in order.",
    "C5": "shuffle=True without steps_per_epoch gives a fresh random order of batches each pass, from the seed.",
    "C6": "A Sequence is delivered in order and exactly once per pass, whatever the workers and whoever dies.",
    "C7": "on_epoch_end runs once after each whole pass and before any of the next, for all producers.",
    "C7 begin": "on_epoch_begin of a PyDataset runs once before each pass.",
    "C8": "Producers live for the whole call; the next pass is made across epoch ends and during validation.",
    "C9": "epochs is the final epoch; epochs <= initial_epoch trains nothing.",
    "C10": "workers=0 runs the source in the trainer, in line, and advances a generator by what was used.",
    "C11": "Threads of one producer share one stream; processes run copies that can ask which they are.",
    "C12": "workers='auto' or (min, max) follows how long the trainer waits.",
    "C13": "At most max_queue_size finished batches wait, and one is in each worker's hands; so with bytes.",
    "C13 default": "Without max_queue_bytes most of the trainer node's object store stays free.",
    "D1": "A fresh generator object travels, also inside a wrapper object.",
    "D2": "A generator function, or any callable that returns an iterator, serves in its place.",
    "D3 attribute": "What cannot travel to a process is an error that names the attribute.",
    "D3 thread": "Without use_multiprocessing, what cannot travel runs in a thread of the caller's process.",
    "D4": "Iterators with __next__ and map datasets of whole batches work.",
    "D4 image iterator": "Keras' ImageDataGenerator.flow is a Sequence, its shuffle the same for all producers.",
    "E1": "class_weight scales the training loss for any source and targets, and multiplies sample weights.",
    "E1 outputs": "class_weight may be given for each output by its name.",
    "E2": "A validation generator is one stream; a Sequence starts at 0, unshuffled; weights count.",
    "E3": "validation_freq counts epochs from 1, as a number or a list.",
    "E4": "Callbacks get Keras' hooks, order, arguments, params and a real model; they can stop training.",
    "E5": "Callbacks run in the trainer, and the caller's own objects end with their state.",
    "E5 driver": "on_driver callbacks run in the caller's process, hook by hook, and can stop training.",
    "E6": "History is Keras', and on the same batches the losses are those of Keras' fit, bit for bit.",
    "E7": "The caller's model ends with weights, optimizer state and metrics as if trained in place.",
    "E7 any model": "Unbuilt models, classes of one's own, and functions that build the model are trained as well.",
    "E8": "verbose is 0 silent, 1 Keras' bar, 2 a line per epoch, drawn once and in the caller's terminal.",
    "E9": "Paths given to callbacks are relative to the caller's working directory.",
    "F1": "An exception of user code reaches the caller with its type, message, worker and batch, and is not retried.",
    "F2": "A lost producer's batches are made again elsewhere; order and exactly-once of a Sequence hold.",
    "F2 generators": "A lost generator's stream restarts, is dropped, or is an error, as ProducerOptions say.",
    "F3": "A lost trainer is restarted from its last checkpoint, the data at the very next batch.",
    "F4": "However a feed or call ends, no actor, object or thread is left.",
    "F5": "What no node can ever hold is refused at once, with the numbers.",
    "F6": "A batch slower than batch_timeout_s is reported, and may be made elsewhere.",
    "G1 processes": "With a seed, batches are the same bytes for any number of worker processes.",
    "G1 threads": "With a seed, rayfeed.rng() is the same in threads; who draws from what threads share is told.",
    "G2": "Without a seed no two workers share a random stream.",
    "G3 feed": "A feed's state is small, JSON takes it, and any number of workers goes on from it.",
    "G3 training": "A training run resumes in the middle of an epoch.",
    "I1": "iter gives a pass of a Sequence or the rest of a stream, take exactly the next n batches.",
    "I2": "A batch has the structure its source gave it, with NumPy arrays.",
    "I3": "Copies of a generator alternate in a fixed order; ordered=False gives what is made first.",
}

NOT_BUILT = {
    "H1": "The report after a call says which stage bounds it, and how many workers would be enough.",
    "H2": "The same figures are Prometheus metrics.",
    "I4": "feed.to_tf_dataset() and feed.to_torch().",
    "I5": "Feed(shard=(i, n)) gives n trainers disjoint parts of one Sequence.",
}


def line(*names):
    """The test holds these lines of the contract."""
    return pytest.mark.line(*names)


def complaint(thread, *, there, here):
    """The test is the answer to a public thread.

    Args:
        thread: Its name: owner/repository#number.
        there: What went wrong there, in our words.
        here: What holds here.
    """
    return pytest.mark.complaint(thread, there=there, here=here)
