"""Two nodes over Redis, clients that count messages, and random faults: `python -m loadtests.chaos`."""
