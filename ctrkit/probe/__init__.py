"""The probe: which cells to try, in which order, and which one to recommend."""
