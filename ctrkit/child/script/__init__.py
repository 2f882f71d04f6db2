"""The observer: watches a training script from inside its own process, and tries other settings."""
