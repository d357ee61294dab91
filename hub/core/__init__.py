"""The decisions of the hub, pure: messages and a time in, effects out. No socket, task, loop or clock."""
