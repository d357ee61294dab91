"""Two nodes over Redis, clients that count, and faults: what is lost, repeated, reordered or told."""
