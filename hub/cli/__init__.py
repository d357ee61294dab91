"""The command `hub`, a file for each of its larger subcommands."""
