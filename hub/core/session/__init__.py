"""One client as a pure state machine: commands and a time in, effects out. `session.Session` is its face."""
