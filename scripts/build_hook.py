"""Writes the commit that a wheel or an sdist is built from into it; `hub.version` reads it there."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds `hub/commit.txt`, unless the source tree has it, as that of an sdist does."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        package = Path(self.root) / "hub"
        if version == "editable" or (package / "commit.txt").exists():
            return
        # By its path: what the package depends on is not installed while it is built.
        spec = importlib.util.spec_from_file_location("version", package / "version.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "commit.txt"
        path.write_text(f"{module.commit_of(package)}\n")
        build_data["force_include"][str(path)] = "hub/commit.txt"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            self._folder.cleanup()
