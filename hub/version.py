"""Which hub this is: the version of the distribution, and the commit that it was built from."""

from __future__ import annotations

import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "hub-realtime"
"""What `pip` calls this package."""

UNKNOWN: Final = "unknown"

_COMMIT_CHARACTERS: Final = 12
_GIT_TIMEOUT_S: Final = 5.0


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # a source tree on the path that was not installed
        return UNKNOWN


def commit_of(package: Path) -> str:
    """Return the commit of a package's folder.

    A build adds it as `commit.txt`; in a clone git knows it. `UNKNOWN` where neither does.
    """
    try:
        return (package / "commit.txt").read_text(encoding="ascii").strip()
    except OSError:
        pass
    if not (package.parent / ".git").exists():
        return UNKNOWN  # a folder above may be a repository, of another project
    command = ["git", "-C", str(package.parent), "rev-parse", f"--short={_COMMIT_CHARACTERS}", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_GIT_TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return done.stdout.decode("ascii", errors="replace").strip() or UNKNOWN


VERSION: Final = _version()
"""The version of the installed distribution."""


@cache
def commit() -> str:
    """Return the commit of this hub."""
    return commit_of(Path(__file__).parent)
