"""Print every benchmark's targets, from the files that the last runs left in `benchmarks/`.

python examples/benchmarks/targets.py
"""

import json

from common import OUT, Target

NAMES = (
    "transport",
    "fit",
    "epoch_boundary",
    "scaling",
    "startup",
    "producer_memory",
    "memory",
    "control_cost",
    "network",
    "compression",
)


def main():
    for name in NAMES:
        path = OUT / f"{name}.json"
        if not path.exists():
            print(f"\n{name}: not run")
            continue
        report = json.loads(path.read_text())
        print(f"\n{name} ({report['date']})")
        for found in report["targets"]:
            print(" ", Target(*(found[key] for key in ("what", "measured", "bound", "at_least", "unit"))))


if __name__ == "__main__":
    main()
