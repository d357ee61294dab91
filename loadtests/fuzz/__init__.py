"""Seeded mutation fuzzing of everything that reads bytes of a peer: `python -m loadtests.fuzz`."""
