"""Imported before torch: how the threads of the command `glintru` wait for each other.

OpenMP reads this once, when torch loads. Threads that spin instead made a training with two threads five times slower
whenever another process wanted one of two cores. In other programs the choice is theirs.
"""

import os
import sys

if os.path.basename((sys.argv or [""])[0]).startswith("glintru"):
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
