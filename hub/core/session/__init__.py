"""The session of one client, as a pure state machine. `session.Session` is its interface."""
