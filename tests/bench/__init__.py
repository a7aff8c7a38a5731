"""What the host pays; ``python -m tests.bench --help``, from the top of the tree."""

import sys
from pathlib import Path

# What the tests share lies beside this directory, as pytest has it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
