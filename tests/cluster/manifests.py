"""What the tests of `cluster/` share: where its files are, which versions they must name, and how a tool is run."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent

TOOL_S = 60
"""How long a validator may take; each needs a second or two."""


def pinned(package):
    """The version of a package that constraints.txt names."""
    return re.search(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def load(path):
    """The one YAML document of a file in `cluster/`."""
    return yaml.safe_load((CLUSTER / path).read_text())


def run(*command, **options):
    """Run a tool to its end: its exit status and all it printed."""
    done = subprocess.run(  # noqa: S603 - the tests' own commands
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=TOOL_S, **options
    )
    return done.returncode, done.stdout + done.stderr
