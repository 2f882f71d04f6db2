"""ctrkit: know before the launch how long a training run takes, in which configuration, and why."""

__version__ = "0.2.0"
