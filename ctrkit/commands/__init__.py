"""The commands: one file for each, which shows the command from start to end."""
