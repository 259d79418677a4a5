"""Everything that a key or the command list can do: one flat table."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Action:
    """`id` names it in the keymap file and in the command list; `keys` are the defaults, changeable by the user.

    `label` is its word in the key line, '' for actions that are not shown there.
    """

    id: str
    description: str
    keys: tuple[str, ...]
    label: str = ""


ACTIONS: tuple[Action, ...] = (
    Action("build_int8", "quantize to int8 with a dataset", ("b",), "int8"),
    Action("build_float16", "build in float16, without quantization", ("F",), "float16"),
    Action("analyse", "compare every layer with the float model", ("a",), "analyse"),
    Action("cancel", "cancel the running job", ("x",), "cancel"),
    Action("export", "write the built model to a file", ("e",), "export"),
    Action("filter", "show only layers whose name or operator matches", ("/",), "filter"),
    Action("next_bad", "next layer below the cosine limit", ("]",)),
    Action("previous_bad", "previous layer below the cosine limit", ("[",)),
    Action("worst", "layer that loses most by itself; again for the next", ("W",), "worst"),
    Action("target", "next target chip", ("t",), "target"),
    Action("dataset", "choose the calibration dataset", ("D",), "dataset"),
    Action("sample", "choose the sample that is analysed", ("S",)),
    Action("open", "open another model", ("o",), "open"),
    Action("down", "next layer", ("j", "down")),
    Action("up", "previous layer", ("k", "up")),
    Action("half_page_down", "half a page down", (".", "ctrl+d")),
    Action("half_page_up", "half a page up", (",", "ctrl+u")),
    Action("page_down", "a page down", ("pagedown",)),
    Action("page_up", "a page up", ("pageup",)),
    Action("first", "first layer", ("g", "home")),
    Action("last", "last layer", ("G", "end")),
    Action("screenshot", "write the screen to an SVG file in this folder", ("Y",)),
    Action("messages", "all messages, in full", ("m",)),
    Action("restart", "start the engine again after it ended, or load the model again", ("r",), "again"),
    Action("commands", "find and run a command", (":", "ctrl+p")),
    Action("keys", "list the keys, searchable", ("?",), "keys"),
    Action("back", "one step back: close a question, a message, the filter", ("escape",)),
    Action("quit", "leave", ("q", "ctrl+q"), "quit"),
)

BY_ID: dict[str, Action] = {action.id: action for action in ACTIONS}
