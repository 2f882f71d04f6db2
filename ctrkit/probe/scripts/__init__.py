"""What a probe decides about a script: its cells, refusals, and whether cells train the same."""
