"""Whether and where an actor can be placed, from the numbers Ray knows, before it is asked to.

Ray lets a request that no node can ever hold wait for ever; here it is refused at once, with the numbers. Where an
autoscaler may bring larger nodes it is left to wait, and the caller is told (contract F5).

An actor that names no CPUs claims 1 where the nodes that could hold it have room to spare, or the cluster can grow: an
autoscaler adds nodes for claims alone. On a smaller cluster, such as one laptop, it claims none: a claim only rations,
and the user asked for the processes. Room to spare means twice what is claimed, since Ray's figure of what is free lags
behind the claims made last.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
from ray._private.state import state as global_state

from rayfeed.errors import OptionError, PlacementError
from rayfeed.options import ProducerOptions, TrainerOptions
from rayfeed.producer.cluster import draining_nodes
from rayfeed.producer.nodes import can_grow, free_cpus, living_nodes, staying_nodes

if TYPE_CHECKING:
    from ray.exceptions import RuntimeEnvSetupError

OPERATORS = ("!", "in(")
"""How a label's value begins in a selector that is more than equality."""

TOLD_AFTER_S = 15.0
"""How long an actor may take to start before its caller is told; it takes a second where there is a place."""

START_TIMEOUT_S, GROWING_TIMEOUT_S = 300.0, 1800.0
"""How long an actor may take to start where the caller did not say; the second where an autoscaler may first have to
get a machine, and that machine an image of some GB."""


@dataclass(frozen=True)
class Claim:
    """What one actor asks of a node.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs.
        memory: Bytes; None for no claim.
        resources: Custom resources.
        label_selector: Labels the node must have.
        runtime_env: The process' runtime environment, environment variables included.
    """

    num_cpus: float
    num_gpus: float = 0.0
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    label_selector: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    def amounts(self) -> dict[str, float]:
        """The claim in Ray's names of resources, zeros left out."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory or 0), **self.resources}
        return {name: amount for name, amount in named.items() if amount > 0}

    def actor_options(self) -> dict[str, Any]:
        """The claim as keyword arguments of an actor's ``options``."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        if self.memory is not None:
            options["memory"] = self.memory
        if self.resources:
            options["resources"] = dict(self.resources)
        if self.label_selector:
            options["label_selector"] = dict(self.label_selector)
        if self.runtime_env:
            options["runtime_env"] = dict(self.runtime_env)
        return options

    def sets(self, variable: str) -> bool:
        """Whether the caller sets this environment variable."""
        return variable in self.runtime_env.get("env_vars", {})

    def __str__(self) -> str:
        amounts = ", ".join(_amount(name, amount) for name, amount in self.amounts().items()) or "no resources"
        labels = ", ".join(f"{name}={value}" for name, value in self.label_selector.items())
        return f"{amounts} on a node with {labels}" if labels else amounts


def producer_claim(options: ProducerOptions, num_producers: int) -> Claim:
    """The claim of each of `num_producers` producers.

    Raises:
        PlacementError: No node could ever hold one, and the cluster cannot grow.
        OptionError: Ray does not take the runtime environment.
    """
    claim = Claim(
        num_cpus=options.num_cpus or 0.0,
        memory=options.memory,
        resources=options.resources,
        label_selector=options.label_selector,
        runtime_env=_environment(options),
    )
    if options.num_cpus is None:
        claim = replace(claim, num_cpus=_claimed_cpus(claim, num_producers))
    refuse_impossible(claim, what="a producer", options="ProducerOptions")
    return claim


def trainer_claim(options: TrainerOptions) -> Claim:
    """The trainer's claim.

    Raises:
        PlacementError: No node could ever hold it, and the cluster cannot grow.
        OptionError: Ray does not take the runtime environment.
    """
    claim = Claim(
        num_cpus=options.num_cpus or 0.0,
        num_gpus=options.num_gpus or 0.0,
        memory=options.memory,
        resources=options.resources,
        label_selector=options.label_selector,
        runtime_env=_environment(options),
    )
    if options.num_gpus is None:
        with_gpu = replace(claim, num_gpus=1.0)
        claim = with_gpu if fitting(staying_nodes(), with_gpu) else claim
    if options.num_cpus is None:
        claim = replace(claim, num_cpus=_claimed_cpus(claim, 1))
    refuse_impossible(claim, what="the trainer", options="TrainerOptions")
    return claim


def fitting(nodes: Iterable[dict[str, Any]], claim: Claim) -> list[dict[str, Any]]:
    """Of these nodes those that could hold the claim when empty.

    Of label selectors equality is looked at; what has operators is Ray's to match.
    """
    return [
        node
        for node in _labelled(nodes, claim)
        if all(node["Resources"].get(name, 0.0) >= amount for name, amount in claim.amounts().items())
    ]


def refuse_impossible(claim: Claim, *, what: str, options: str) -> None:
    """Raise `PlacementError` if no node could hold the claim even when empty; only warn where the cluster can grow."""
    nodes, going = living_nodes(), draining_nodes()
    if fitting((node for node in nodes if node["NodeID"] not in going), claim):
        return
    labels = _equalities(claim)
    labelled = _labelled(nodes, claim)
    if labelled:
        have = "; ".join(_described(node, claim.amounts(), node["NodeID"] in going) for node in labelled)
        lack = f"more than any {'such ' if labels else ''}node of the cluster has ({have})"
    else:
        have = "; ".join(f"{node['NodeManagerAddress']}: {_labels(node['Labels'], labels)}" for node in nodes)
        lack = f"and no node of the cluster has these labels ({have})"
    message = f"{what} claims {claim}, {lack}."
    if can_grow():
        warnings.warn(f"rayfeed: {message} Waiting for the autoscaler to add such a node.", stacklevel=2)
        return
    raise PlacementError(f"{message}\n  It would wait for ever: lower {options}, or add such a node.")


def start_timeout_s(options: ProducerOptions | TrainerOptions) -> float:
    """How long an actor with these options may wait for its place and start."""
    if options.start_timeout_s is not None:
        return options.start_timeout_s
    return GROWING_TIMEOUT_S if can_grow() else START_TIMEOUT_S


class Patience:
    """What is said of actors that do not start: nothing for a while, then more and more seldom.

    Args:
        claim: What each claims.
        options: The class of the options in which it was asked for.
        timeout_s: Its `start_timeout_s`.
    """

    def __init__(self, claim: Claim, options: str, timeout_s: float) -> None:
        self._claim = claim
        self._options = options
        self._timeout_s = timeout_s
        self._next_s = TOLD_AFTER_S

    def look(self, who: str, waited_s: float) -> str | None:
        """What to tell of those that have waited so long; None where it is too soon."""
        if waited_s < self._next_s:
            self._next_s = TOLD_AFTER_S if waited_s < TOLD_AFTER_S else self._next_s
            return None
        self._next_s = 2 * waited_s
        others = "other jobs, or the autoscaler's nodes" if can_grow() else "other jobs"
        return (
            f"rayfeed: {who} not started after {waited_s:.0f} s: claimed is {self._claim}, and the cluster has "
            f"{describe_free(self._claim)} free.\n"
            f"  Where that is too little it waits for {others}; in {self._options} lower the claim (num_cpus=0: no "
            f"CPU), or start_timeout_s (now {self._timeout_s:g}), after which it is an error."
        )

    def at_end(self, who: str, waited_s: float, claims: str, lower: str) -> PlacementError:
        """What to raise when `start_timeout_s` has passed.

        Args:
            who: The actor.
            waited_s: For how long it has waited.
            claims: Who claims what this was made for.
            lower: Which argument may be lowered besides the CPUs.
        """
        return PlacementError(
            f"{who} found no place in {waited_s:.0f} s: {claims} claims {self._claim}, and the cluster has "
            f"{describe_free(self._claim)} free.\n"
            f"  Wait for other jobs to end, lower {self._options}.num_cpus or {lower}, or raise "
            f"{self._options}.start_timeout_s (now {self._timeout_s:g})."
        )


def no_environment(error: RuntimeEnvSetupError, *, what: str, options: str) -> PlacementError:
    """What to raise where Ray could not set up a runtime environment. It has tried more than once."""
    told = [line for line in str(error).splitlines() if line.strip()]
    return PlacementError(
        f"{what} cannot start: Ray could not set up its runtime environment: {told[-1].strip()}\n"
        f"  See to {options}.runtime_env, and to that of the job (ray.init, ray job submit): what they name must be "
        "within the node's reach."
    )


def _environment(options: ProducerOptions | TrainerOptions) -> dict[str, Any]:
    """The runtime environment asked for; `env_vars` goes before what `runtime_env` has of them."""
    found = dict(options.runtime_env)
    if options.env_vars:
        found["env_vars"] = {**found.get("env_vars", {}), **options.env_vars}
    if not found:
        return found
    try:
        ray.remote(runtime_env=found)(most_producers)  # Ray looks at it where a function or actor is declared
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"{type(options).__name__}.runtime_env cannot be used: {error}\n"
            "  Directories and modules of this machine go with the whole job: "
            'ray.init(runtime_env={"working_dir": "."}), or `ray job submit --working-dir .`.'
        ) from error
    return found


def most_producers() -> int:
    """Producers that the cluster's CPUs are worth; with those of nodes to come where Ray was told how many may.

    Ray's launcher and KubeRay do not tell: there it is what the cluster has now.
    """
    configured = (global_state.get_max_resources_from_cluster_config() or {}).get("CPU", 0.0)
    return max(1, int(max(configured, ray.cluster_resources().get("CPU", 0.0))))


def describe_free(claim: Claim | None = None) -> str:
    """What the cluster has and what of it is free, for messages: CPUs, GPUs, and all that is claimed."""
    total, free = ray.cluster_resources(), ray.available_resources()
    claimed = claim.amounts() if claim is not None else {}
    names = ["CPU", *(["GPU"] if "GPU" in total else []), *claimed]
    return ", ".join(_amount(name, free.get(name, 0.0), total.get(name, 0.0)) for name in dict.fromkeys(names))


def _equalities(claim: Claim) -> dict[str, str]:
    return {name: value for name, value in claim.label_selector.items() if not value.startswith(OPERATORS)}


def _labelled(nodes: Iterable[dict[str, Any]], claim: Claim) -> list[dict[str, Any]]:
    wanted = _equalities(claim).items()
    return [node for node in nodes if wanted <= node["Labels"].items()]


def _described(node: Mapping[str, Any], wanted: Mapping[str, float], is_going: bool) -> str:  # noqa: FBT001 - private
    amounts = ", ".join(_amount(name, node["Resources"].get(name, 0.0)) for name in wanted)
    return f"{node['NodeManagerAddress']}: {amounts}{', but it was told to end' if is_going else ''}"


def _labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={labels[name]}" for name in wanted if name in labels) or "none of them"


def _amount(name: str, amount: float, total: float | None = None) -> str:
    in_gib = name == "memory"

    def number(value: float) -> str:
        return f"{value / 2**30:.1f}" if in_gib else f"{value:g}"

    of = f" of {number(total)}" if total is not None else ""
    return f"{number(amount)}{of} {'GiB memory' if in_gib else name}"


def _claimed_cpus(claim: Claim, num_actors: int) -> float:
    """The CPUs that each of these actors claims besides, where the user did not say."""
    if can_grow():
        return 1.0
    free = free_cpus()
    has_room = sum(free.get(node["NodeID"], 0.0) for node in fitting(staying_nodes(), claim)) >= 2 * num_actors
    return 1.0 if has_room else 0.0
