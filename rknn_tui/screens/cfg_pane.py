"""The cfg's text on the tune screen: shown beside the graph or over it, saved, compared, edited in another program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from textual.timer import Timer

from engine.summaries import LayerSummary
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.pieces import Line
from rknn_tui.screens.asking import Asking
from rknn_tui.symbols import drawable, fit
from rknn_tui.terminal.outside import edit_outside

if TYPE_CHECKING:
    from rknn_tui.bench.bench import Bench
    from rknn_tui.widgets.cfg_editor import CfgEditor
    from rknn_tui.widgets.graph_view import GraphView

SECONDS_BEFORE_READING = 0.2
"""What is typed is looked at once the fingers rest."""
SECONDS_BEFORE_KEEPING = 0.05
"""Edits are written down at most once in that time: a process can be killed at any moment."""


class CfgPane(Asking):
    """The part of the tune screen that is about the cfg's text; the editor is made when it is first shown."""

    bench: Bench
    _editor: CfgEditor | None = None
    _reading: Timer | None = None
    _keeping: Timer | None = None
    _group = ""
    _groups = 0
    _left_at = ""

    @property
    def editor(self) -> CfgEditor | None:
        """The editor, once it was made."""
        return self._editor

    @property
    def editing_text(self) -> bool:
        """Whether keys are typed into the cfg."""
        return self.editor is not None and self.focused is self.editor

    @property
    def place(self) -> str:
        """Which pane's keys work."""
        return "cfg" if self.editing_text else "tune"

    @property
    def graph(self) -> GraphView:
        """The layer table."""
        from rknn_tui.widgets.graph_view import GraphView

        return self.query_one(GraphView)

    def show_layer_row(self, name: str) -> bool:
        """Put the graph's cursor on a layer."""
        raise NotImplementedError

    def relayout(self) -> None:
        """Panes came or went: everything is drawn with its new size after the layout."""
        self.call_after_refresh(self.show_all)

    def show_all(self) -> None:
        """Bring every line up to date."""
        raise NotImplementedError

    # Showing

    def do_editor(self) -> Reply:
        """Show or hide the editor."""
        if self.has_class("editing"):
            self._hide_editor()
            return None
        if not self.bench.editing.ready:
            return Notice("nothing is quantized yet: the cfg tells of a quantized model", "warning")
        if self.editor is None:
            from rknn_tui.widgets.cfg_editor import CfgEditor

            self._editor = CfgEditor(self.palette, self.symbols, id="editor")
            self.query_one("#cfg").mount(self._editor)
        # A graph that has the whole screen gives the text its place.
        self.remove_class("whole-graph")
        self.add_class("editing")
        self.relayout()
        self.bench.text.bring_up_to_date(self._show_text_of_layer)
        if not self.has_class("wide"):
            self.call_after_refresh(self.focus_editor)
        return None

    def _show_text_of_layer(self) -> None:
        """Show the text, at the layer's line where the cursor is on another one than when the text was left."""
        self._show_text()
        layer = self.graph.current
        if self.editor is not None and layer is not None and layer.name != self._left_at:
            self.editor.go_to(layer.name)

    def _hide_editor(self) -> None:
        self._left_at = self.graph.current.name if self.graph.current is not None else ""
        self.remove_class("editing", "whole-cfg")
        self.set_focus(None)
        self.relayout()

    def leave_without_build(self) -> None:
        """Nothing is typed into a cfg that is of no build: it comes back with the next one, but for float16."""
        if not self.has_class("editing") or self.bench.editing.ready:
            return
        if self.bench.built or not self.has_class("wide"):
            self._hide_editor()
        elif self.editing_text:
            self.set_focus(None)

    def focus_editor(self) -> None:
        """Keys are typed into the cfg from now on."""
        if self.editor is not None and self.has_class("editing") and self.bench.editing.ready:
            if self.has_class("whole-graph"):
                self.remove_class("whole-graph")
                self.relayout()
            self.set_focus(self.editor)
            self.show_status()
            self.show_cfg_title()

    def restore_focus(self) -> None:
        asked_from_text = self.editor is not None and self.focused_before is self.editor
        if self.has_class("editing") and (asked_from_text or not self.has_class("wide")):
            self.focus_editor()

    def do_other_pane(self) -> Reply:
        if not self.has_class("editing"):
            return self.do_editor()
        if self.editing_text:
            self.set_focus(None)
            if not self.has_class("wide"):
                self._hide_editor()
            elif self.has_class("whole-cfg"):
                self.remove_class("whole-cfg")
                self.relayout()
        else:
            self.focus_editor()
        self.show_status()
        self.show_cfg_title()
        return None

    def do_maximise(self) -> Reply:
        self.toggle_class("whole-cfg" if self.editing_text else "whole-graph")
        self.relayout()
        return None

    def _show_text(self) -> None:
        editor, text = self.editor, self.bench.text
        if editor is None or text.text is None or not self.has_class("editing"):
            return
        if editor.text != text.text:
            if editor.text:
                editor.patch(text.text, follow=self.editing_text)
            else:
                editor.show(text.text)
                if (layer := self.graph.current) is not None:
                    editor.go_to(layer.name)
        editor.set_faults(text.faults)
        self.show_cfg_title()

    def show_cfg_title(self) -> None:
        """The line over the editor: the file, whether it is saved, and what is wrong in it."""
        if not self.has_class("editing"):
            return
        area = self.line("cfg-title")
        area.show([self._cfg_title(area.size.width)])

    def _cfg_title(self, width: int) -> Line:
        text = self.bench.text
        name = drawable(text.path or self.bench.cfg_path(), self.symbols)
        unsaved = text.unsaved or self.bench.editing.history.unsaved or not text.path
        facts = "not saved" if unsaved else "saved"
        role = "changed" if unsaved else "muted"
        faults = f"  {counted(len(text.faults), 'fault')}!" if text.faults else ""
        where = "" if self.editing_text else "  (tab goes there)"
        room = max(width - len(facts) - len(faults) - len(where) - 5, 8)
        shown = fit(name, min(len(name), room), self.symbols, keep_end=True)
        return [
            (f"{self.symbols.rule} {shown} ", "title"),
            (f" {facts}", role),
            (faults, "bad"),
            (where, "muted"),
        ]

    # Between text and graph

    def text_changed(self) -> None:
        """The text or its faults changed, and not by typing."""
        self._show_text()
        self.show_status()

    def edits_changed(self, step: str) -> None:
        """The graph was edited: the text follows where it is seen."""
        self.unsaved_changed()
        stepped = self.bench.editing.stepped
        if self.has_class("editing"):
            # Where a change of the text is taken back or made again, the text of that step comes right after this.
            if stepped is None or stepped[1] is None:
                self.bench.text.bring_up_to_date(self._show_text)
            self.show_cfg_title()

    def on_cfg_editor_changed(self, message: CfgEditor.Changed) -> None:
        self.bench.text.type(message.text)
        self.went_on(self._message)
        if not message.continues:
            self._groups += 1
        self._group = f"typing {self._groups}"
        if self._reading is not None:
            self._reading.stop()
        self._reading = self.set_timer(SECONDS_BEFORE_READING, self._read)
        self.unsaved_changed()
        self.show_cfg_title()

    def _read(self) -> None:
        self.bench.text.read(self._group)

    def on_cfg_editor_moved(self) -> None:
        editor = self.editor
        if editor is None:
            return
        tensor = editor.tensor_at_cursor
        layer = self.bench.editing.layer_of(tensor) if tensor else ""
        if layer and self.editing_text:
            self.show_layer_row(layer)

    def on_cfg_editor_copied(self, message: CfgEditor.Copied) -> None:
        self.tell(self.app.copy(message.text))

    def on_cfg_editor_refused(self) -> None:
        self.tell(Notice("opened read-only: the cfg cannot be edited", "warning"))

    def unsaved_changed(self) -> None:
        """What is not saved is kept for the next start, soon."""
        if self._keeping is None:
            self._keeping = self.set_timer(SECONDS_BEFORE_KEEPING, self._keep)

    def _keep(self) -> None:
        self._keeping = None
        self.bench.keep_unsaved()

    def follow_in_text(self, layer: LayerSummary) -> None:
        """The graph's cursor rests on a layer: the text shows its line."""
        editor = self.editor
        # While something is asked from within the text, its cursor waits where it was left.
        if editor is not None and self.has_class("editing") and not self.editing_text and self.question is None:
            editor.go_to(layer.name)

    def do_next_fault(self) -> Reply:
        if self.editor is None or not self.bench.text.faults:
            return Notice("no fault is known in the cfg")
        if not (self.editor.next_fault(1) or self.editor.next_fault(-1)) and self.editor.fault_here is None:
            return Notice("no fault is below or above")
        fault = self.editor.fault_here
        return Notice(f"line {fault.line}: {fault.message}", "warning") if fault is not None else None

    # Files

    def do_save(self) -> Reply:
        return self.bench.save()

    def do_save_as(self) -> Reply:
        return self.bench.save_as()

    def do_open_cfg(self) -> Reply:
        return self.bench.ask_cfg()

    def do_reload(self) -> Reply:
        """Read the file again; edits that are not in it become a step that can be undone."""
        path = self.bench.text.path
        if not path:
            return Notice("this cfg was never saved: there is nothing to read again", "warning")
        self.bench.text.open(path, self._show_text)
        return None

    def do_difference(self) -> Reply:
        """Show how the text differs from what was saved, or from what the build gave."""
        if not self.bench.editing.ready:
            return Notice("nothing is quantized yet", "warning")

        def show() -> None:
            from rknn_tui.text.cfg_lines import diff_lines

            text = self.bench.text
            self.app.show_difference(diff_lines(text.saved or "", text.text or ""))

        self.bench.text.bring_up_to_date(show)
        return None

    def do_external(self) -> Reply:
        """Edit the text in $VISUAL or $EDITOR; what comes back is one edit."""
        command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
        if not command:
            return Notice("no editor is named: set EDITOR, such as EDITOR=nano", "warning")
        if not self.bench.editing.ready:
            return Notice("nothing is quantized yet", "warning")
        self.bench.text.bring_up_to_date(lambda: self.tell(self._edit_outside(command)))
        return None

    def _edit_outside(self, command: str) -> Reply:
        name = Path(self.bench.text.path or self.bench.cfg_path()).name or "model.cfg"
        edited = edit_outside(self.app, command, name, self.bench.text.text or "")
        if isinstance(edited, Notice):
            return edited
        text, fault = edited
        if text == self.bench.text.text:
            return Notice("the cfg stays as it was")
        self.bench.text.type(text)
        self.bench.text.read()
        self._show_text()
        return Notice(f"the cfg was edited{fault}", "warning" if fault else "info")
