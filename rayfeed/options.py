"""What a caller may ask for, as frozen records checked when they are built.

`ProducerOptions` and `TrainerOptions` say what one actor needs from the cluster; `StreamOptions` gathers the arguments
that shape one stream of batches, whichever public function they came through. None of them knows Ray.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rayfeed.errors import OptionError

Compression = Literal["auto", "lz4", "zstd"]
"""How frames are compressed that go from one machine to another."""

OnGeneratorLoss = Literal["restart", "drop", "error"]
"""What becomes of a generator's copy whose producer is lost."""


@dataclass(frozen=True)
class ProducerOptions:
    """What each producer actor needs from the cluster.

    Attributes:
        num_cpus: CPUs each producer claims. None: 1 where the nodes that could hold a producer have twice as many CPUs
            free as there are producers, or the cluster can grow; else 0, so that producers start on any machine. An
            autoscaler gets machines for claims alone.
        memory: Bytes of memory each producer claims (Ray's logical ``memory``). None: no claim.
        resources: Custom Ray resources per producer.
        label_selector: Ray node labels a producer's node must have, such as ``{"rayfeed.io/role": "producer"}``.
        env_vars: Environment variables of the producer processes, set before the process starts.
        runtime_env: Ray's runtime environment of the producers, beyond that of the job: such as ``{"pip": [...]}`` or
            ``{"working_dir": "s3://bucket/code.zip"}``. Ray takes directories of this machine for a whole job alone.
        max_restarts: How often within a minute one producer is replaced after its process or node was lost.
        start_timeout_s: Seconds a producer may wait for a place and start, while no other producer works. None: 300, or
            1800 where an autoscaler may have to get a machine first.
        batch_timeout_s: Seconds after which a warning names the batch that is waited for, and its producer. Sooner or
            later than that, a Sequence's batch that takes much longer than others is made by an idle producer as well.
            A producer that has not answered after ten times as long is replaced.
        on_generator_loss: What becomes of a generator's copy whose producer is lost, with its position in the stream.
            "restart": the replacement runs the copy from its beginning, so that batches may come again; a warning says
            so. "drop": the other copies go on without it, with a warning; the last one's loss is an error. "error": an
            error. A Sequence's batches are made again elsewhere, and none of this is needed.
        compression: Of frames that go to another machine, by Arrow: "lz4" (fast), "zstd" (smaller), or "auto", which
            measures the link, the batches and both codecs, and compresses where that brings more batches; a codec that
            makes none smaller is not used. Such batches are in the consumer's own memory instead of the object store's.
            None, and between processes of one machine: not compressed.
    """

    num_cpus: float | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    label_selector: Mapping[str, str] = field(default_factory=dict)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    max_restarts: int = 3
    start_timeout_s: float | None = None
    batch_timeout_s: float = 60.0
    on_generator_loss: OnGeneratorLoss = "restart"
    compression: Compression | None = None

    def __post_init__(self) -> None:
        check_number("ProducerOptions.num_cpus", self.num_cpus, least=0, or_none=True)
        check_integer("ProducerOptions.memory", self.memory, least=1, or_none=True)
        check_integer("ProducerOptions.max_restarts", self.max_restarts, least=0)
        check_number("ProducerOptions.start_timeout_s", self.start_timeout_s, least=0, or_none=True)
        check_number("ProducerOptions.batch_timeout_s", self.batch_timeout_s, least=1)
        if self.on_generator_loss not in get_args(OnGeneratorLoss):
            raise OptionError(
                'ProducerOptions.on_generator_loss must be "restart", "drop" or "error", got '
                f"{self.on_generator_loss!r}."
            )
        if self.compression is not None and self.compression not in get_args(Compression):
            raise OptionError(
                f'ProducerOptions.compression must be "auto", "lz4", "zstd" or None, got {self.compression!r}.'
            )
        _check_mappings("ProducerOptions", self)


@dataclass(frozen=True)
class TrainerOptions:
    """What the trainer actor needs from the cluster, and what becomes of a training whose trainer is lost.

    A training that goes on from a checkpoint has the very next batch, and ends with the losses and weights, to the last
    bit, of one that was never interrupted. A checkpoint holds the model's and the optimizer's variables, the metrics'
    running values, the random states, what training changed in callbacks, `History`, the epoch (from 0), the number of
    its batches that were trained, and where the sources stand. Callbacks run ``on_train_begin`` again, in mid-epoch
    also ``on_epoch_begin``, and then have what was saved of them put back; those of `rayfeed.on_driver` are not turned
    back. A checkpoint is loaded by pickle, which can run any code: only one's own may be loaded.

    Attributes:
        num_gpus: GPUs it claims. None: 1 where any node has one that could hold the rest of the claim, else 0.
        num_cpus: CPUs it claims; also its ``OMP_NUM_THREADS``, unless that is set. None: 1 where 2 are free on such
            nodes, or the cluster can grow; else 0; and as many threads as its machine has CPUs, as in a process of your
            own, but not more than Ray counts there: in a pod, those that it asked for.
        memory: Bytes of memory it claims (Ray's logical ``memory``). None: no claim.
        resources: Custom Ray resources.
        label_selector: Ray node labels its node must have.
        env_vars: Environment variables of its process, set before the process starts.
        runtime_env: Ray's runtime environment of its process, as in `ProducerOptions`. Producers have it too, but for
            what theirs says otherwise: Ray hands it on to what an actor starts.
        start_timeout_s: Seconds it may wait for a place and start. None: as in `ProducerOptions`.
        checkpoint_dir: Directory, or URL that Arrow takes (``s3://bucket/folder``, ``fsspec+abfs://...``), where a
            training is saved: one file, which the next one replaces. Every node that the trainer may run on must reach
            it. A relative path is one of the caller's working directory. None: nothing is saved.
        save_every: Batches from one checkpoint to the next; the last epoch's end is saved in any case. None: each
            epoch's end.
        max_failures: How often in one call a trainer whose process or node was lost is started again. It goes on from
            the call's last checkpoint; at the beginning where there is none yet, or no `checkpoint_dir`.
        resume: Whether a training goes on from the checkpoint that `checkpoint_dir` holds, unless an earlier call of
            the same `rayfeed.Trainer` saved it. Where there is none, the first begins at its beginning, with a warning.
            Without `resume` a checkpoint of another call is refused.
    """

    num_gpus: float | None = None
    num_cpus: float | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    label_selector: Mapping[str, str] = field(default_factory=dict)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    start_timeout_s: float | None = None
    checkpoint_dir: str | None = None
    save_every: int | None = None
    max_failures: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        check_number("TrainerOptions.num_gpus", self.num_gpus, least=0, or_none=True)
        check_number("TrainerOptions.num_cpus", self.num_cpus, least=0, or_none=True)
        check_integer("TrainerOptions.memory", self.memory, least=1, or_none=True)
        check_number("TrainerOptions.start_timeout_s", self.start_timeout_s, least=0, or_none=True)
        _check_mappings("TrainerOptions", self)
        check_integer("TrainerOptions.save_every", self.save_every, least=1, or_none=True)
        check_integer("TrainerOptions.max_failures", self.max_failures, least=0)
        check_bool("TrainerOptions.resume", self.resume)
        if self.checkpoint_dir is not None:
            _check_directory("TrainerOptions.checkpoint_dir", self.checkpoint_dir)
            object.__setattr__(self, "checkpoint_dir", os.fspath(self.checkpoint_dir))
            return
        for name in ("save_every", "resume"):
            if getattr(self, name):
                raise OptionError(
                    f"TrainerOptions.{name}={getattr(self, name)} needs checkpoint_dir: without it nothing is saved.\n"
                    "  Give the directory, or the URL, of the checkpoints."
                )


@dataclass(frozen=True)
class StreamOptions:
    """The arguments that shape one stream of batches.

    Attributes:
        workers: Producers (`use_multiprocessing`) or threads of one producer; 0 runs the source in line. "auto", or the
            least and the most: producers whose number follows how long the consumer waits.
        use_multiprocessing: Whether `workers` counts processes over the cluster instead of threads.
        max_queue_size: Finished batches that may wait, besides one in each worker's hands.
        max_queue_bytes: Bound on the bytes of those batches. None: a share of the consumer's node's object store.
        shuffle: Whether each pass of a Sequence has its own random order of batches.
        seed: Root of every random order. None: drawn anew for each stream.
        ordered: Whether batches come in the source's order instead of first made, first delivered.
        copy: Whether delivered arrays are private and writable instead of views of shared memory.
        bare_inputs: Whether a batch may be inputs alone.
    """

    workers: int | Literal["auto"] | tuple[int, int] = 1
    use_multiprocessing: bool = False
    max_queue_size: int = 10
    max_queue_bytes: int | None = None
    shuffle: bool = False
    seed: int | None = None
    ordered: bool = True
    copy: bool = False
    bare_inputs: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", _checked_workers(self.workers))
        check_integer("max_queue_size", self.max_queue_size, least=1)
        check_integer("max_queue_bytes", self.max_queue_bytes, least=1, or_none=True)
        check_integer("seed", self.seed, least=0, or_none=True)
        for name in ("use_multiprocessing", "shuffle", "ordered", "copy"):
            check_bool(name, getattr(self, name))

    @property
    def is_inline(self) -> bool:
        """Whether the source runs in the consumer, without producers."""
        return self.workers == 0

    @property
    def least(self) -> int | None:
        """Producers there are always, where their number is not fixed."""
        match self.workers:
            case int():
                return None
            case "auto":
                return 1
            case (least, _):
                return least

    @property
    def most(self) -> int | None:
        """Producers there may be, where their number is not fixed and the caller said how many."""
        return self.workers[1] if isinstance(self.workers, tuple) else None

    @property
    def num_producers(self) -> int:
        """Producer processes: `workers` of them, or one with `workers` threads, or none; the least that were said."""
        if not isinstance(self.workers, int):
            return self.most or 1
        return self.workers if self.use_multiprocessing else min(self.workers, 1)

    @property
    def num_threads(self) -> int:
        """Threads of each producer process."""
        return 1 if self.use_multiprocessing or not isinstance(self.workers, int) else max(self.workers, 1)


def _checked_workers(workers: Any) -> int | Literal["auto"] | tuple[int, int]:
    """The number, or what it may be between, as plain numbers."""
    if workers == "auto":
        return "auto"
    if not isinstance(workers, tuple):
        check_integer("workers", workers, least=0)
        return operator.index(workers)
    if len(workers) != 2:
        raise OptionError(
            f'workers must be a whole number, "auto", or the least and the most as a tuple; got {workers!r}.'
        )
    least, most = workers
    check_integer("workers[0]", least, least=1)
    check_integer("workers[1]", most, least=least)
    return operator.index(least), operator.index(most)


def check_integer(name: str, value: Any, *, least: int, or_none: bool = False) -> None:
    """Raise `OptionError` unless `value` is a whole number of at least `least` (or None, where allowed)."""
    if value is None and or_none:
        return
    if value is None or isinstance(value, bool) or not hasattr(value, "__index__"):
        raise OptionError(f"{name} must be a whole number{_or_none(or_none)}, got {value!r} ({type(value).__name__}).")
    if operator.index(value) < least:
        raise OptionError(f"{name} must be at least {least}, got {value}.")


def check_number(name: str, value: Any, *, least: float, or_none: bool = False) -> None:
    """Raise `OptionError` unless `value` is a number of at least `least` (or None, where allowed)."""
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionError(f"{name} must be a number{_or_none(or_none)}, got {value!r} ({type(value).__name__}).")
    if not value >= least:
        raise OptionError(f"{name} must be at least {least}, got {value}.")


def check_bool(name: str, value: Any) -> None:
    """Raise `OptionError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, got {value!r} ({type(value).__name__}).")


def _check_directory(name: str, value: Any) -> None:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise OptionError(f"{name} must be a path or URL as a string, got {value!r} ({type(value).__name__}).")


def _or_none(or_none: bool) -> str:  # noqa: FBT001 - private, one use
    return " or None" if or_none else ""


def _check_mappings(owner: str, options: ProducerOptions | TrainerOptions) -> None:
    kinds = {"resources": (int, float), "label_selector": str, "env_vars": str, "runtime_env": object}
    for name, kind in kinds.items():
        value = getattr(options, name)
        if not isinstance(value, Mapping):
            raise OptionError(f"{owner}.{name} must be a dict, got {value!r} ({type(value).__name__}).")
        for key, member in value.items():
            if not isinstance(key, str):
                raise OptionError(f"{owner}.{name} must have strings as keys, got {key!r} ({type(key).__name__}).")
            if not isinstance(member, kind):
                wanted = "a number" if name == "resources" else "a string"
                raise OptionError(f"{owner}.{name}[{key!r}] must be {wanted}, got {member!r}.")
