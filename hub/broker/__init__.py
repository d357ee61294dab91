"""How nodes reach each other: the broker interface and its implementations."""
