"""Load and fault runs, from the root of the repository: `python -m loadtests.faults`."""

import sys
from pathlib import Path

# They start servers with what the tests start them with.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
