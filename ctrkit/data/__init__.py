"""`from ctrkit.data import Loader`: the front for other people's training loops."""

from ctrkit.ctr.data import __getattr__ as __getattr__
