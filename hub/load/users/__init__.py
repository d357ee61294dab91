"""Locust users of a hub: sockets that stay open, and what comes over them, measured and counted."""
