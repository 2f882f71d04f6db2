"""`from ctrkit.data import Loader`: fast batches for your own training loop."""

from ctrkit.ctr.data import __getattr__ as __getattr__
