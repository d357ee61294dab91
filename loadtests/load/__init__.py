"""One command that loads a hub, and says whether it holds its service levels."""
