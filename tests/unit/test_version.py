"""hub.version: the commit of an installed package, of a clone, and of neither."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hub.version import UNKNOWN, commit_of


def repository(folder: Path) -> str:
    """Make a repository with one commit, and return the commit."""
    git = ("git", "-C", str(folder), "-c", "user.name=ann", "-c", "user.email=ann@shop.example")
    for command in (("init", "--quiet"), ("commit", "--quiet", "--allow-empty", "--message", "one")):
        subprocess.run([*git, *command], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_clone_has_the_commit_of_git(tmp_path: Path) -> None:
    whole = repository(tmp_path)
    (tmp_path / "hub").mkdir()
    assert commit_of(tmp_path / "hub") == whole[:12]


def test_a_built_package_has_the_commit_of_its_file(tmp_path: Path) -> None:
    repository(tmp_path)
    package = tmp_path / "hub"
    package.mkdir()
    (package / "commit.txt").write_text("0123456789ab\n")
    assert commit_of(package) == "0123456789ab"


def test_an_installed_package_does_not_take_the_commit_of_a_repository_around_it(tmp_path: Path) -> None:
    repository(tmp_path)
    package = tmp_path / "venv" / "site-packages" / "hub"
    package.mkdir(parents=True)
    assert commit_of(package) == UNKNOWN


def test_the_commit_is_unknown_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path / "hub") == UNKNOWN


def test_the_commit_of_a_broken_repository_is_unknown(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    assert commit_of(tmp_path / "hub") == UNKNOWN
