"""`python -m ctrkit.child SPEC.json`: the child process."""

import sys

from ctrkit.child.entry import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
