"""Everything that a key or the command list can do: one flat table."""

from __future__ import annotations

import dataclasses

EVERYWHERE = ""
PLACES = ("tune", "cfg", "charts", "devices", "jobs", "compare", "candidates", "findings", "pick")
"""The screens and panes that have keys of their own."""


@dataclasses.dataclass(frozen=True)
class Action:
    """`id` names it in the keymap file and in the command list; `keys` are the defaults, changeable by the user.

    `label` is its word in the key line, '' for actions that are not shown there. `places` are where its keys work, or
    EVERYWHERE; where `commanded`, the command list of every screen has it too. `verb` is the headless command that does
    the same, '' where there is none.
    """

    id: str
    description: str
    keys: tuple[str, ...]
    label: str = ""
    places: tuple[str, ...] = ("tune",)
    verb: str = ""
    commanded: bool = False

    def works_in(self, place: str) -> bool:
        """Whether the keys of the action work there."""
        return EVERYWHERE in self.places or place in self.places


_LISTS = ("tune", "charts", "devices", "jobs", "compare", "candidates", "findings", "pick")
_GRAPH = ("tune", "cfg")
_CANCELLED = ("tune", "devices", "jobs", "candidates", "findings")
_BOARDS = ("devices",)
_ALL = (EVERYWHERE,)

ACTIONS: tuple[Action, ...] = (
    Action("build_int8", "quantize to int8 with a dataset", ("b",), "int8", verb="build"),
    Action("build_float16", "build in float16, without quantization", ("F",), "float16", verb="build"),
    Action("analyse", "compare every layer with the float model", ("a",), "analyse", verb="analyze"),
    Action("trace", "find which roundings the error of the outputs comes from", ("i",), verb="analyze"),
    Action("tune", "search for the layers that are worth a higher precision", ("A",), "repair", verb="tune"),
    Action("candidates", "what the search found, to step through and take", ("T",), "candidates"),
    Action("lint", "what costs accuracy in the model, its samples or its precisions", ("L",), "lint", verb="lint"),
    Action("cancel", "cancel the running job", ("x",), "cancel", _CANCELLED),
    Action("restart", "start the engine again after it ended, or load the model again", ("r",), "again"),
    Action("cycle", "the layer's next precision", ("space",), "type"),
    Action("set_int8", "int8 for the layer, or for all marked ones", ("8",), verb="set"),
    Action("set_int16", "int16 for the layer, or for all marked ones", ("6",), verb="set"),
    Action("set_float16", "float16 for the layer, or for all marked ones", ("f",), "fp16", verb="set"),
    Action("set_default", "take the wish for a precision back", ("d",), verb="set"),
    Action("set_where", "put all layers that match a filter into a precision", ("M",), verb="set"),
    Action("range", "change the range of the layer's output", ("R",), verb="set"),
    Action("undo", "take the last change back", ("u", "ctrl+z"), "undo", _GRAPH),
    Action("redo", "make the change again that was taken back", ("ctrl+r", "ctrl+y"), places=_GRAPH),
    Action("save", "save the cfg and what it needs to be built from", ("w", "ctrl+s"), "save", _GRAPH),
    Action("save_as", "save the cfg under another name", (">",), places=_GRAPH),
    Action("export", "write the built model to a file", ("e",), "export", verb="build"),
    Action("editor", "show or hide the cfg's text beside the graph", ("c",), "cfg", _GRAPH),
    Action("difference", "what has changed since the cfg was saved", ("=",), places=_GRAPH),
    Action("reload", "read the cfg again from its file", ("ctrl+l",), places=_GRAPH),
    Action("open_cfg", "read another cfg for this model", ("O",), verb="build"),
    Action("external", "open the cfg in $EDITOR", ("E",), places=_GRAPH),
    Action("copy", "copy the name, the row, the table or the cfg", ("y",)),
    Action("journal", "write what was done as a script for replay", ("J",), verb="replay"),
    Action("next_fault", "next line of the cfg that cannot be used", ("ctrl+n",), places=_GRAPH),
    Action("other_pane", "go to the other pane: the graph, the cfg", ("tab",), places=_GRAPH),
    Action("maximise", "give the pane the whole screen, or take that back", ("+",), places=("tune",)),
    Action("filter", "show only layers that match", ("/",), "filter"),
    Action("next_match", "next layer that matches the filter", ("n",)),
    Action("previous_match", "previous layer that matches the filter", ("N",)),
    Action("next_bad", "next layer below the cosine limit", ("]",)),
    Action("previous_bad", "previous layer below the cosine limit", ("[",)),
    Action("worst", "layer that loses most by itself; again for the next", ("W",), "worst"),
    Action("mark", "mark the layer, or take the mark away", ("m",)),
    Action("mark_range", "mark from here to where the key is pressed again", ("V",)),
    Action("mark_op", "mark all layers with the same operator", ("*",)),
    Action("mark_type", "mark all layers of the same precision", ("%",)),
    Action("mark_block", "mark all layers of the block", ("B",)),
    Action("mark_where", "mark all layers that match a filter", ("|",)),
    Action("unmark", "take all marks away", ("U",)),
    Action("sort", "sort the layers by a column", ("s",)),
    Action("sort_reverse", "turn the order round", ("I",)),
    Action("fold", "fold the block, or unfold it", ("z",)),
    Action("fold_all", "fold all blocks, or unfold them", ("Z",)),
    Action("order", "order of the rows: as executed, or with the fewest lanes", ("v",)),
    Action("previous_on_lane", "back along the edge, to what the layer reads", ("h", "left")),
    Action("next_on_lane", "on along the edge, to what reads the layer", ("l", "right")),
    Action("jump", "follow an edge that is cut; or all that is known of the layer", ("enter",)),
    Action("count", "a number for the next movement", (";",)),
    Action("target", "next target chip", ("t",), "target"),
    Action("dataset", "choose the calibration dataset", ("D",), "dataset"),
    Action("sample", "choose the sample that is analysed", ("S",)),
    Action("config", "read the settings of the conversion from a file", ("C",)),
    Action("open", "open another model", ("o",), "open"),
    Action("down", "next row", ("j", "down"), places=_LISTS),
    Action("up", "previous row", ("k", "up"), places=_LISTS),
    Action("half_page_down", "half a page down", (".", "ctrl+d"), places=_LISTS),
    Action("half_page_up", "half a page up", (",", "ctrl+u"), places=_LISTS),
    Action("page_down", "a page down", ("pagedown",), places=_LISTS),
    Action("page_up", "a page up", ("pageup",), places=_LISTS),
    Action("first", "first row", ("g", "home"), places=_LISTS),
    Action("last", "last row", ("G", "end"), places=_LISTS),
    Action("take", "take the candidate", ("enter",), "take", ("candidates",)),
    Action("preview", "see the candidate in the graph", ("space",), "preview", ("candidates",)),
    Action("apply_finding", "make the change that the finding asks for", ("space",), "apply", ("findings",)),
    Action("go_to", "go to the layer", ("enter",), "go there", ("findings", "compare")),
    Action("choose_left", "choose what stands on the left", ("a",), "left", ("compare",)),
    Action("choose_right", "choose what stands on the right", ("b",), "right", ("compare",)),
    Action("next_difference", "next row that differs", ("n", "]"), "next", ("compare",)),
    Action("previous_difference", "previous row that differs", ("N", "["), places=("compare",)),
    Action("only_differences", "show only what differs, or all", ("d",), "differences", ("compare",)),
    Action("next_chart", "next chart", ("]", "tab"), "next", ("charts",)),
    Action("previous_chart", "previous chart", ("[", "shift+tab"), places=("charts",)),
    Action("export_chart", "write the chart as text and as CSV", ("e",), "export", ("charts",)),
    Action("refresh", "ask again for the list", ("r",), "refresh", _BOARDS),
    Action("choose_board", "choose the board to run on", ("space",), "choose", _BOARDS),
    Action("board_time", "measure the model's time on the board", ("P",), "time", _BOARDS, "perf", True),
    Action("board_memory", "ask the board how much memory the model takes", ("M",), "memory", _BOARDS, "memory", True),
    Action(
        *("board_accuracy", "compare every layer on the board with the simulator", ("E",), "compare", _BOARDS),
        verb="analyze",
        commanded=True,
    ),
    Action("details", "more about the row, or less", ("enter",), "details", ("devices", "jobs")),
    Action("log", "what the engine prints, or not", ("l",), "log", ("jobs",)),
    Action("screen_tune", "the layers", ("1",), places=_ALL),
    Action("screen_charts", "the charts", ("2",), "charts", _ALL),
    Action("screen_devices", "the devices", ("3",), places=_ALL),
    Action("screen_jobs", "the jobs and the log", ("4",), places=_ALL),
    Action("screen_compare", "two cfgs or two runs side by side", ("5",), places=_ALL),
    Action("screenshot", "write the screen to an SVG file in this folder", ("Y",), places=_ALL),
    Action("redraw", "draw the screen anew, after something else wrote to the terminal", ("f5",), places=_ALL),
    Action("messages", "all messages, in full", ("'",), places=_ALL),
    Action("theme", "next theme", ("ctrl+t",), places=_ALL),
    Action("commands", "find and run a command", (":", "ctrl+p"), places=_ALL),
    Action("keys", "list the keys of this pane, searchable", ("?", "f1"), "keys", _ALL),
    Action("back", "one step back: close a question, a message, the filter, a screen", ("escape",), "back", _ALL),
    Action("quit", "leave", ("q", "ctrl+q"), "quit", _ALL),
)

BY_ID: dict[str, Action] = {action.id: action for action in ACTIONS}
