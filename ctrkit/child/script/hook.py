"""Notices when a script imports torch, and only then loads the observer.

It is a finder on `sys.meta_path` that finds nothing itself: it lets the other finders find a
module, and calls a function after that module was executed. A process that never imports torch only
pays for a look into a small set at each import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ctrkit.core import lifeline

#: Modules to watch after their import, and the function of `patches` that does it.
WATCHED = {
    "torch": "watch_torch",
    "torch.optim.optimizer": "watch_optimizers",
    "torch.utils.data.dataloader": "watch_dataloader",
    "torch.distributed.checkpoint.state_dict_saver": "watch_distributed_saves",
    "torchdata.stateful_dataloader.stateful_dataloader": "watch_stateful_dataloader",
    "safetensors.torch": "watch_safetensors",
}


class ImportHook:
    """Calls a function of `patches` after the import of each watched module."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any | None:
        """The spec from the other finders, with a call after the module is executed."""
        if name not in WATCHED or self._looking:
            return None
        self._looking = True
        try:
            spec = _found_by_others(self, name, path, target)
        finally:
            self._looking = False
        loader = getattr(spec, "loader", None)
        if loader is not None and hasattr(loader, "exec_module"):
            _call_after(loader, lambda module: _watch(name, module))
        return spec


def _found_by_others(hook: ImportHook, name: str, path: Any, target: Any) -> Any:
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        if finder is not hook and find is not None:
            spec = find(name, path, target)
            if spec is not None:
                return spec
    return None


def _call_after(loader: Any, call: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def execute_and_call(module: Any) -> None:
        del loader.exec_module
        execute(module)
        call(module)

    try:
        loader.exec_module = execute_and_call
    except AttributeError:  # the loader has fixed attributes, so the module stays unwatched
        return


def _watch(name: str, module: Any) -> None:
    try:
        from ctrkit.child.script import patches

        getattr(patches, WATCHED[name])(module)
    except Exception as error:
        from ctrkit.child.script.trouble import note_trouble

        note_trouble(f"{name} could not be watched", error)


def install() -> None:
    """Watch imports of this process from now on."""
    lifeline.keep_child_folder()
    sys.meta_path.insert(0, ImportHook())
    for name in WATCHED:
        if name in sys.modules:  # something imported it before any sitecustomize ran
            _watch(name, sys.modules[name])
