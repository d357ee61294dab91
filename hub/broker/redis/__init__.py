"""The broker of many nodes, over Redis 7: one server, one that Sentinel watches, or a cluster."""
