"""ctrkit: know before a training run how long it takes, in which configuration, and why."""

__version__ = "0.2.0"
