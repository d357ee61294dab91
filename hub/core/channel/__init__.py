"""One channel on a node, pure: its stream, those who missed a part of it, and who gets which bytes."""
