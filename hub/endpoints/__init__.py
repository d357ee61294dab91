"""The hub's HTTP and WebSocket endpoints, one a file."""
