"""The process that an app runs in: its program, its server, its signals and its threads."""
