"""The sample product as a vendor ships it: frozen by each packager, killed offline, started again, heard of.

``python -m tests.frozen --help``, from the top of the tree. The results stand in ``vendor_notes/packagers/README.md``
with the command that gives them; the suite runs nothing of this.
"""

import sys
from pathlib import Path

# What the tests share lies beside this directory, as pytest has it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
