"""The training loop of a real run, and its parts."""
