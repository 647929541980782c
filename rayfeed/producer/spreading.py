"""Which machine each actor is asked for; Ray takes another where that one has no place.

Producers keep away from the consumer's machine, whose CPUs the trainer needs, as long as others have a place for them;
then they take what is left there. Those that claim CPUs are spread by Ray. Of those that claim none Ray keeps no count:
each is asked for on the machine that has the fewest for its CPUs.

Where an autoscaler has yet to bring the machines, the first producers start on the consumer's, so that batches come at
once. Those beyond what it can spare are asked for elsewhere alone: they stand in Ray's list of what is waited for, from
which the autoscaler (2.60) gets machines, and a machine that has no id yet is none that is to be kept away from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rayfeed.producer.nodes import NODE_ID, can_grow, living_nodes, staying_nodes
from rayfeed.producer.placement import OPERATORS, Claim, fitting


class Spread:
    """Chooses machines for the producers of one pool.

    Args:
        claim: What each claims.
        here: The consumer's node.
    """

    def __init__(self, claim: Claim, here: str) -> None:
        self._claim = claim
        self._here = here

    def choose(self, taken: Mapping[str, int], left: str | None) -> tuple[str | None, dict[str, Any]]:
        """A producer's machine.

        Args:
            taken: Node -> how many of the pool's producers it has.
            left: Where the one was that it replaces: that node may be gone without Ray's knowing it yet.

        Returns:
            The node's id, or None where Ray chooses; and the actor's options that ask for it.
        """
        labels = dict(self._claim.label_selector)
        if NODE_ID in labels:
            return None, {"label_selector": labels}
        away = labels | {NODE_ID: f"!{self._here}"}
        if not self._claim.num_cpus:
            node_id = self._least_loaded(taken, left)
            if node_id is not None:
                return node_id, _asked(labels | {NODE_ID: node_id}, away, labels)
        elif can_grow():
            room = room_here(staying_nodes(), self._claim, self._here)
            if room is not None and taken.get(self._here, 0) < room:
                return self._here, _asked(labels | {NODE_ID: self._here}, away)
            if room is not None:
                return None, _asked(away)
        return None, _asked(away, labels)

    def _least_loaded(self, taken: Mapping[str, int], left: str | None) -> str | None:
        if any(value.startswith(OPERATORS) for value in self._claim.label_selector.values()):
            return None
        cpus = {
            node["NodeID"]: node["Resources"].get("CPU", 0.0)
            for node in staying_nodes()
            if self._claim.label_selector.items() <= node["Labels"].items()
        }
        return least_loaded({node: count for node, count in cpus.items() if count}, taken, self._here, left)


def least_loaded(cpus: Mapping[str, float], taken: Mapping[str, int], here: str, left: str | None) -> str | None:
    """The machine that one producer more would load least; None where there is none.

    Args:
        cpus: Machine -> its CPUs.
        taken: Machine -> how many producers it has.
        here: The consumer's: it is taken when the others have a producer for each CPU, and has one CPU less to give.
        left: The machine to leave out, if there are others.
    """
    loads = {
        node: max(1.0, (taken.get(node, 0) + 2) / count) if node == here else (taken.get(node, 0) + 1) / count
        for node, count in cpus.items()
    }
    others = {node: load for node, load in loads.items() if node != left}
    return min(others or loads, key=lambda node: (loads[node], node == here), default=None)


def room_here(nodes: Iterable[dict[str, Any]], claim: Claim, here: str) -> int | None:
    """How many producers may start on the consumer's machine while others have yet to come.

    Counted is what it has, not what is free, since that lags behind: they go elsewhere where it is taken.

    Args:
        nodes: Those that an actor can be placed on.
        claim: What each producer claims: CPUs, and what else there is.
        here: The consumer's node. One of its CPUs is the trainer's.

    Returns:
        The number; None where another node can hold a producer, if not now.
    """
    found = {node["NodeID"]: node["Resources"] for node in fitting(nodes, claim)}
    own = found.pop(here, None)
    if found:
        return None
    if own is None:
        return 0
    spare = own | {"CPU": own["CPU"] - 1}
    return max(0, int(min(spare[name] // amount for name, amount in claim.amounts().items())))


def where_cpus_are(claim: Claim, here: str) -> dict[str, Any]:
    """An actor's options that ask for a machine with CPUs, the caller's own before others, if it claims no part of one.

    Ray sends an actor that claims nothing to any node, also to one without CPUs on which nothing is to run: a head in
    Kubernetes is such a node.

    Args:
        claim: The actor's.
        here: The caller's node.
    """
    labels = dict(claim.label_selector)
    if claim.num_cpus or claim.num_gpus or NODE_ID in labels:
        return {}
    bare = sorted(node["NodeID"] for node in living_nodes() if not node["Resources"].get("CPU"))
    wished = []
    if any(node["NodeID"] == here and here not in bare for node in fitting(staying_nodes(), claim)):
        wished.append(labels | {NODE_ID: here})
    if bare:
        wished.append(labels | {NODE_ID: f"!in({','.join(bare)})"})
    return _asked(*wished, labels) if wished else {}


def _asked(first: dict[str, str], *others: dict[str, str]) -> dict[str, Any]:
    """An actor's options that ask for a node with these labels, in this order."""
    options: dict[str, Any] = {"label_selector": first}
    if others:
        options["fallback_strategy"] = [{"label_selector": labels} for labels in others]
    return options
