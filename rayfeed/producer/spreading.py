"""Which machine each producer is asked for; Ray takes another where that one has no place.

Producers keep away from the consumer's machine, whose CPUs the trainer needs, as long as others have a place for them;
then they take what is left there. Those that claim CPUs are spread by Ray. Of those that claim none Ray keeps no count:
each is asked for on the machine that has the fewest for its CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayfeed.producer.cluster import draining_nodes
from rayfeed.producer.placement import OPERATORS, Claim, living_nodes

NODE_ID = "ray.io/node-id"
"""The label by which Ray names each node."""


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
        node_id = None if self._claim.num_cpus else self._least_loaded(taken, left)
        if node_id is None:
            return None, {"label_selector": away, "fallback_strategy": [{"label_selector": labels}]}
        return node_id, {
            "label_selector": labels | {NODE_ID: node_id},
            "fallback_strategy": [{"label_selector": away}, {"label_selector": labels}],
        }

    def _least_loaded(self, taken: Mapping[str, int], left: str | None) -> str | None:
        if any(value.startswith(OPERATORS) for value in self._claim.label_selector.values()):
            return None
        going = draining_nodes()
        cpus = {
            node["NodeID"]: node["Resources"].get("CPU", 0.0)
            for node in living_nodes()
            if node["NodeID"] not in going and self._claim.label_selector.items() <= node["Labels"].items()
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
