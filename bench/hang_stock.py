"""A plain training script over a scenario's loader, with torch's own `timeout=5`.

    python hang_stock.py SCENARIO.py WORKERS START_METHOD

Two epochs, as a probe runs them. The last line of stdout is `completed` or `raised ...`.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

TIMEOUT_S = 5
BATCH_SIZE = 8


def main(file: str, workers: int, start_method: str | None) -> None:
    path = Path(file)
    sys.path.insert(0, str(path.parent))
    try:
        scenario = importlib.import_module(path.stem)
        loader = scenario.make_loader(
            workers=workers, start_method=start_method, batch_size=BATCH_SIZE
        )
        owner = getattr(loader, "loader", loader)
        if workers:
            owner.timeout = TIMEOUT_S
        for _epoch in range(2):
            for _batch in loader:
                pass
    except Exception as error:
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        print(f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
    else:
        print("completed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)
