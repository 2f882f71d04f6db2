"""Makes help pages plain: without programmers' types, with `--help` among other options."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

_PANEL = "rich_help_panel"


class PlainCommand(TyperCommand):
    """A command whose help shows no `<bool>` for a switch, and no panel for `--help` alone."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options and arguments, with `--help` in the panel of the first other option."""
        params = list(super().get_params(ctx))
        panels = [getattr(one, _PANEL, None) for one in params if one.param_type_name == "option"]
        for one in params:
            _make_plain(one)
            if "--help" in one.opts and panels:
                setattr(one, _PANEL, panels[0])
        return params


class PlainGroup(TyperGroup):
    """A group of commands whose help shows no `<bool>` for a switch."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's own options."""
        params = list(super().get_params(ctx))
        for one in params:
            _make_plain(one)
        return params


def _make_plain(param: Any) -> None:
    if param.param_type_name == "argument":
        param.display_type_rich = lambda ctx: None  # its name says enough
    elif getattr(param, "is_flag", False):
        param.metavar = ""
