"""The hub's benchmark: `python -m loadtests.bench`, from the root of the repository, or `scripts/bench`."""
