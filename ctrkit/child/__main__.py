"""`python -m ctrkit.child SPEC.json`: starts the child process.

`--serve DESCRIPTOR` instead of a spec: it forks children on request, and goes on in each of them.
"""

import sys

from ctrkit.child.entry import main
from ctrkit.core.fork_requests import SERVE

if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        from ctrkit.child.forkserver import serve

        serve(int(sys.argv[2]))
    sys.exit(main(sys.argv[1:]))
