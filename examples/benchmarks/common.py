"""What the benchmarks share: medians, ratios, targets, and the files they leave in `benchmarks/`.

Contenders take turns: in every round each of them runs once, so that a machine that grows slower does so for all. A
ratio is taken within a round; what counts is the median of the rounds' ratios, and their least and greatest are shown.
"""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parent.parent.parent / "benchmarks"
MOST_LABELS = 40  # characters under a chart that stand side by side
PACKAGES = ("rayfeed", "ray", "numpy", "pyarrow", "keras", "tensorflow", "torch", "grain")


@dataclass(frozen=True)
class Target:
    """What was aimed at, and the rounds' figures for it."""

    what: str
    measured: list[float]
    bound: float
    at_least: bool = True
    unit: str = "x"

    @property
    def median(self):
        return statistics.median(self.measured)

    @property
    def is_met(self):
        return self.median >= self.bound if self.at_least else self.median <= self.bound

    def __str__(self):
        sign, verdict = (">=" if self.at_least else "<="), ("met" if self.is_met else "NOT MET")
        found = spread(self.measured, self.unit)
        return f"{verdict:7}  {self.what}: {found}, wanted {sign} {self.bound:g}{self.unit}"


def ratios(ours, theirs):
    """The rounds' ratios of two contenders, or of one and the best of several in each round."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def digits(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values, unit=""):
    """Median, least and greatest."""
    middle = f"{digits(statistics.median(values))}{unit}"
    return middle if len(values) == 1 else f"{middle} ({digits(min(values))} to {digits(max(values))})"


def table(rows, unit):
    """Markdown: a line per case, a column per contender; `rows[case][contender]` are the rounds' figures."""
    contenders = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| {unit} | " + " | ".join(contenders) + " |", "|---" * (len(contenders) + 1) + "|"]
    for case, row in rows.items():
        cells = [spread(row[name]) if name in row else "-" for name in contenders]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def chart(name, rows, unit, *, log):
    """One group of bars per case, one bar per contender with its least and greatest."""
    contenders = list(dict.fromkeys(who for row in rows.values() for who in row))
    figure, axes = plt.subplots(figsize=(max(7, 1.1 * len(rows) + 3), 4.5), layout="constrained")
    width = 0.8 / len(contenders)
    for number, who in enumerate(contenders):
        places = [place + (number + 0.5) * width - 0.4 for place, row in enumerate(rows.values()) if who in row]
        found = [row[who] for row in rows.values() if who in row]
        middles = [statistics.median(values) for values in found]
        errors = [
            [middle - min(values) for middle, values in zip(middles, found, strict=True)],
            [max(values) - middle for middle, values in zip(middles, found, strict=True)],
        ]
        axes.bar(places, middles, width * 0.95, yerr=errors, label=who, error_kw={"linewidth": 0.8})
    is_crowded = sum(map(len, rows)) > MOST_LABELS
    axes.set_xticks(range(len(rows)), list(rows), rotation=20 * is_crowded, ha="right" if is_crowded else "center")
    axes.set_ylabel(unit)
    if log:
        axes.set_yscale("log")
    axes.set_title(name.replace("_", " "))
    if len(contenders) > 1:
        figure.legend(fontsize="small", loc="outside right upper")
    figure.savefig(OUT / f"{name}.png", dpi=120)
    plt.close(figure)


def finish(name, rows, targets, *, unit, log=False):
    """Print the table and the targets; write both, and what they were measured with, as JSON and as a chart."""
    OUT.mkdir(exist_ok=True)
    print(f"\n{name}\n\n{table(rows, unit)}\n")
    for target in targets:
        print(target)
    report = {
        "benchmark": name,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "versions": versions(),
        "unit": unit,
        "rows": rows,
        "targets": [asdict(target) | {"median": target.median, "is_met": target.is_met} for target in targets],
    }
    (OUT / f"{name}.json").write_text(json.dumps(report, indent=1))
    chart(name, rows, unit, log=log)
