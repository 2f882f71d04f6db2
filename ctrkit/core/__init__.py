"""What parent and child share: specs, records, the files of a run folder, units, errors."""
