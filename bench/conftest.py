"""The builds, as the tests have them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from builds import kernels as kernels
