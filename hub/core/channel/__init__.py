"""One channel on a node, pure: its stream, the recovery of its subscribers, and which bytes each gets."""
