"""Users of a hub for Locust: sockets that stay open, and what comes over them, measured and counted."""
