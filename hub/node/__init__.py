"""One node: it holds connections, runs what their sessions decide, and listens to the broker."""
