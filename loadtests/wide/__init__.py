"""A node with very many channels loses Redis; when is each whole again: `python -m loadtests.wide`."""
