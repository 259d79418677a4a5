"""The full-screen app: its settings, theme and screens, and the engine's process behind it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.driver import Driver
from textual.events import Event, Key, Paste
from textual.reactive import Reactive
from textual.screen import Screen
from textual.theme import Theme

from engine.errors import EngineError
from engine.host_client import EngineHost
from engine.host_protocol import EngineDiedError
from rknn_tui import keymap, palette, settings, symbols
from rknn_tui.actions import ACTIONS, BY_ID
from rknn_tui.bench.bench import Bench
from rknn_tui.bench.boards import Boards
from rknn_tui.bench.dialogue import Notice, Question, Reply, counted, notice_of
from rknn_tui.bench.paths import typed_path
from rknn_tui.bench.runs import Run
from rknn_tui.messages import EngineEnded, StepEnded, StepProgressed
from rknn_tui.pieces import Line
from rknn_tui.screens.base import WorkScreen
from rknn_tui.screens.choose import ChooseScreen, OpenScreen, PickScreen, RecentFile
from rknn_tui.screens.tune import TuneScreen
from rknn_tui.symbols import wrap
from rknn_tui.terminal import crashes
from rknn_tui.terminal.clipboard import LARGEST_FOR_TERMINALS, sendable, write_clip
from rknn_tui.terminal.driver import driver_for
from rknn_tui.terminal.hangup import leaving_when_told
from rknn_tui.terminal.painting import Painter
from rknn_tui.terminal.typed_ahead import TypedAhead
from rknn_tui.widgets.marked_list import MarkedList

LARGEST_LOG_BYTES = 1 << 20

SCREENS = {
    "charts": ("rknn_tui.screens.charts", "ChartsScreen"),
    "devices": ("rknn_tui.screens.devices", "DevicesScreen"),
    "jobs": ("rknn_tui.screens.jobs", "JobsScreen"),
    "compare": ("rknn_tui.screens.compare", "CompareScreen"),
    "candidates": ("rknn_tui.screens.candidates", "CandidatesScreen"),
    "findings": ("rknn_tui.screens.findings", "FindingsScreen"),
}
"""The screens beside the tune screen, imported when they are first shown."""


class Workshop(App[int]):
    """`options` are the command line's: inputs, input_size_list, outputs, dataset, config, float16, batch."""

    # All here rather than on their screens: Textual does not load those of an app's default screen.
    CSS_PATH: ClassVar = ["app.tcss", "screens/tune.tcss", "screens/choose.tcss"]
    ENABLE_COMMAND_PALETTE = False
    # The class's default, not a later assignment: NO_COLOR picks its filter while the app is made, by this theme.
    theme: Reactive[str] = Reactive("ansi-dark")

    def __init__(
        self,
        path: str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        engine_command: Sequence[str] | None = None,
        boards_command: Sequence[str] | None = None,
    ) -> None:
        # Scrolling or fading in steps would send every step through the terminal's link.
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
        super().__init__()
        self._painter = Painter(self.console)
        self._typed = TypedAhead(self, super().on_event)
        self.animation_level = "none"
        folder = settings.config_folder()
        self.settings, faults = settings.load(folder / "settings.yaml")
        self.keymap, key_faults = keymap.load(folder / "keys.yaml")
        name = self.settings.theme_in(os.environ)
        if self.no_color and name not in ("ansi-dark", "ansi-light"):
            name = "ansi-dark"
        self.palette, theme_faults = palette.load(name)
        self._faults = [*faults, *key_faults, *theme_faults]
        self.symbols = symbols.choose(self.settings.symbols)
        self._path = path
        log = _engine_log()
        self.host = EngineHost(engine_command, log_path=log, on_death=lambda error: self._to_tune(EngineEnded(error)))
        self.bench = Bench(
            self.host,
            options or {},
            lambda *progress: self._to_tune(StepProgressed(*progress)),
            lambda *end: self._to_tune(StepEnded(*end)),
            log,
            self.keymap,
            self.settings,
        )
        self.boards = Boards(boards_command, log_path=log)
        self.tune = TuneScreen(self)
        self._start = contextlib.ExitStack()

    def _to_tune(self, message: StepProgressed | StepEnded | EngineEnded) -> None:
        # Called in the thread that reads the engine's events; posting is the one thing that any thread may do.
        self.tune.post_message(message)

    def get_default_screen(self) -> Screen[Any]:
        return self.tune

    def run(self, **how: Any) -> int | None:
        # Without its pipe the engine ends by itself: nobody needs to end it.
        with leaving_when_told(self.bench.keep_unsaved, self.exit):
            return super().run(**how)

    def on_load(self) -> None:
        # Textual paints the empty screen twice while it starts: hold that back until there is something to see.
        self._start.enter_context(self.batch_update())

    def on_mount(self) -> None:
        self.app_resume_signal.subscribe(self, lambda _: self.redraw())
        self._set_theme()

    async def on_event(self, event: Event) -> None:
        if isinstance(event, (Key, Paste)) and not event.is_forwarded and not self.is_headless:
            self._typed.put(event)
        else:
            await super().on_event(event)

    def get_driver_class(self) -> type[Driver]:
        return driver_for(super().get_driver_class())

    def _fatal_error(self) -> None:
        self.end_by_fault(sys.exc_info()[1])

    def panic(self, *renderables: Any) -> None:
        # Textual's own way to tell of styles that cannot be read, with a page of them.
        self.end_by_fault(sys.exc_info()[1])

    def end_by_fault(self, error: BaseException | None) -> None:
        """A fault of the program: edits are kept, and the terminal shows a sentence instead of a traceback."""
        self._return_code = 1
        if self._exit_renderables:
            # One sentence is enough: what fails while it ends comes from the same fault.
            return
        kept = False
        with contextlib.suppress(Exception):
            kept = self.bench.keep_unsaved()
        self._exit_renderables.append(Text(crashes.sentence(error, kept=kept)))
        self._close_messages_no_wait()

    def tune_ready(self) -> None:
        """The first screen can show things: start the engine and open what was asked for."""
        self.call_after_refresh(self.call_after_refresh, self._start.close)
        try:
            self.host.start()
        except EngineDiedError as error:
            self.tune.tell(self.bench.died_of(error))
        for fault in self._faults:
            self.tune.tell(Notice(fault, "warning"))
        if self._path is not None:
            self.tune.tell(self.bench.open(self._path))
        else:
            self.choose_file()

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if self.is_headless or self._batch_count or renderable is None:
            super()._display(screen, renderable)
            return
        difference: Any = self._painter.difference(renderable, self.size.width)
        if difference is None:
            self._painter.forget()
        place = self.screen.outer_size.clamp_offset(self.cursor_position)
        if difference is None or difference.text or place != self._previous_cursor_position:
            super()._display(screen, difference or renderable)

    def on_resize(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        """Draw every cell anew, whatever the terminal is believed to show."""
        self._painter.forget()
        if self.screen_stack:
            self.screen.refresh()

    def on_unmount(self) -> None:
        self.bench.keep_unsaved()
        self.host.kill()
        self.boards.end()

    def _set_theme(self) -> None:
        if not self.palette.ansi:
            background, foreground, primary = (self.palette.colours[name] for name in palette.COLOURS)
            self.register_theme(
                Theme(
                    name=f"rknn-{self.palette.name}",
                    dark=self.palette.dark,
                    primary=primary,
                    foreground=foreground,
                    background=background,
                    surface=background,
                    panel=background,
                )
            )
            self.theme = f"rknn-{self.palette.name}"
        elif not self.palette.dark:
            self.theme = "ansi-light"

    def choose_file(self) -> None:
        """Show the file picker."""

        def opened(path: str | None) -> None:
            if path is not None:
                self.tune.tell(self.open_file(path))
            elif not self.bench.path:
                self.tune.tell(Notice(f"no model is open: {self.keymap.shown('open')} opens one"))

        recent = [RecentFile(one.path, one.opened) for one in settings.recent()]
        self.push_screen(OpenScreen(self.palette, self.symbols, recent), opened)

    def open_file(self, path: str) -> Reply:
        """Open the model at a path as it was typed."""
        try:
            return self.bench.open(typed_path(path))
        except EngineError as error:
            return notice_of(error)

    # Screens

    def go_to(self, name: str) -> None:
        """Show the screen of that name; "tune" is the one below all others."""
        while self.screen is not self.tune:
            self.pop_screen()
        if name == "tune":
            return
        if not self.is_screen_installed(name):
            module, kind = SCREENS[name]
            self.install_screen(getattr(importlib.import_module(module), kind)(self, self.bench), name)
        self.push_screen(name)

    def tell(self, reply: Reply) -> None:
        """Say something on the screen in front; a question is put on the tune screen."""
        if isinstance(self.screen, WorkScreen):
            self.screen.tell(reply)
        else:
            self.tune.tell(reply)

    def compare_with(self, side: str, run: Run) -> None:
        """Show the comparison with a run on one of its sides."""
        self.go_to("compare")
        screen: Any = self.screen
        self.call_after_refresh(screen.choose, side, run)

    def compare_file(self, side: str, path: str) -> Reply:
        """A cfg's file was named for one side of the comparison."""
        return self.bench.evaluate_file(side, path)

    def numbers_changed(self) -> None:
        """Something that other screens may show changed."""
        if isinstance(self.screen, WorkScreen) and self.screen.ready:
            self.screen.numbers_changed()

    def progress_changed(self) -> None:
        """A job went on while another screen is in front."""
        if isinstance(self.screen, WorkScreen) and self.screen.ready:
            self.screen.progress_changed()

    def show_layer(self) -> Reply:
        """Show all that is known of the layer under the cursor."""
        lines = self.tune.all_of_layer(max(self.size.width - 4, 20))
        if not lines:
            return None
        rows = [(str(number), line, "") for number, line in enumerate(lines)]
        self.push_screen(ChooseScreen("the layer", "type to search   esc back", rows, self.palette, self.symbols))
        return None

    def show_difference(self, lines: Sequence[Line]) -> None:
        """Show lines of the cfg that changed, with their signs + and -."""
        if not lines:
            self.tune.tell(Notice("nothing has changed since the cfg was saved"))
            return
        texts = ["".join(text for text, _ in line) for line in lines]
        changed = sum(text.startswith(("+", "-")) for text in texts)
        rows = [(str(number), text, "") for number, text in enumerate(texts)]
        title = f"what has changed since the cfg was saved: {counted(changed, 'line')}"
        self.push_screen(ChooseScreen(title, "type to search   esc back", rows, self.palette, self.symbols))

    def pick_file(self, question: Question, suffixes: tuple[str, ...]) -> None:
        """Answer a question for a path from a list of files, or by typing one."""

        def picked(path: str | None) -> None:
            if path is not None:
                self.tune.tell(self.tune.answered(question, path))

        start = question.prefill
        self.push_screen(PickScreen(question.text, suffixes, start, (), self.palette, self.symbols), picked)

    def choose_action(self, title: str, *, everywhere: bool) -> None:
        """Show actions with their keys, all or those of this pane first; the chosen one is performed."""
        place = self.tune.place if self.screen is self.tune else getattr(self.screen, "PLACE", "tune")
        screen = self.screen

        def chosen(action: str | None) -> None:
            if action is None:
                return
            if isinstance(screen, WorkScreen) and BY_ID[action].works_in(place):
                screen.perform(action)
            else:
                self.go_to("tune")
                self.tune.perform(action)

        elsewhere = [action for action in ACTIONS if everywhere and (action.works_in("tune") or action.commanded)]
        known = [action for action in ACTIONS if action.works_in(place) or action in elsewhere]
        rows = []
        for action in known:
            keys, verb = " ".join(self.keymap.keys[action.id]), f"  [{action.verb}]" if action.verb else ""
            if everywhere:
                rows.append((action.id, action.id, action.description + (f"  ({keys})" if keys else "") + verb))
            else:
                rows.append((action.id, keys, f"{action.description}  :{action.id}"))
        self.push_screen(
            ChooseScreen(title, "enter run   up down choose   esc back", rows, self.palette, self.symbols), chosen
        )

    def show_messages(self, notices: Sequence[Notice]) -> None:
        """Show all messages since the start in full, the latest first."""
        rows = [
            (str(number), line, "")
            for number, notice in enumerate(reversed(notices))
            for line in wrap(f"{notice.level}: {notice.text}", max(self.size.width - 4, 20))
        ]
        self.push_screen(
            ChooseScreen("messages, the latest first", "type to search   esc back", rows, self.palette, self.symbols)
        )

    def loaded(self, path: str) -> None:
        """A model was loaded: it is offered again next time, and what was of another one goes."""
        settings.remember_file(path)
        if self.is_screen_installed("compare"):
            compare: Any = self.get_screen("compare")
            compare.forget()

    # Copying, looks, leaving

    def copy(self, text: str) -> Reply:
        """Hand a text to the terminal's clipboard, and to a file where that does not get through."""
        if not text:
            return Notice("there is nothing to copy", "warning")
        path = write_clip(text)
        where = f"written to {path}" if path is not None else "its file cannot be written"
        if len(text) > LARGEST_FOR_TERMINALS:
            return Notice(f"{len(text)} characters {where}; too long for many terminals' clipboards")
        self.copy_to_clipboard(sendable(text))
        return Notice(f"sent to the terminal, and {where}")

    def next_theme(self) -> Reply:
        """Go on to the next theme."""
        names = palette.names()
        known = names.index(self.palette.name) if self.palette.name in names else -1
        return self.use_theme(names[(known + 1) % len(names)])

    def use_theme(self, name: str) -> Reply:
        """Draw with another theme from now on."""
        if self.no_color and name not in ("ansi-dark", "ansi-light"):
            return Notice("NO_COLOR is set: only the terminal's own colours are used", "warning")
        self.palette, faults = palette.load(name)
        self._set_theme()
        for screen in (*self.screen_stack, *self._installed_screens.values()):
            if isinstance(screen, Screen):
                repaint(screen, self.palette)
        return Notice(f"theme {name}; 'theme: {name}' in settings.yaml keeps it" if not faults else faults[0])

    def leave(self) -> Reply:
        """End the app; asks where something would be lost."""
        job = self.bench.running
        unsaved = self.bench.unsaved
        if job is None and not unsaved:
            self.end()
            return None
        lost = [f"{job.name} is running and would be lost"] if job is not None else []
        if unsaved:
            lost.append(f"{counted(unsaved, 'edit')} not saved ({self.keymap.shown('save')} saves)")
        return Question("quit", f"{'; '.join(lost)}. y quits, other keys stay", confirm=True)

    def end(self) -> None:
        """End the app for good: what was left unsaved on purpose does not come back."""
        self.bench.closed()
        self.exit(0)

    async def action_quit(self) -> None:
        """Textual's own binding for leaving: asks while a job runs, like any other way out."""
        self.go_to("tune")
        self.tune.perform("quit")

    def action_help_quit(self) -> None:
        """Ctrl+C: say how to leave, since elsewhere that is what it does."""
        self.tell(Notice(f"{self.keymap.first('quit')} quits, {self.keymap.first('cancel')} cancels a job"))


def repaint(screen: Screen[Any], colours: palette.Palette) -> None:
    """Let every part of a screen draw in other colours."""
    if hasattr(screen, "palette"):
        screen.palette = colours
    for widget in screen.query("*"):
        if hasattr(widget, "palette"):
            widget.palette = colours
            if isinstance(widget, MarkedList):
                widget.reset(widget.cursor)
        widget.refresh()


def _engine_log() -> Path | None:
    """Where the engine's process prints, or None when the folder cannot be made."""
    log = settings.state_folder() / "engine.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
            log.unlink()
        log.touch()
    except OSError:
        return None
    return log


def run(path: str | None, options: Mapping[str, Any]) -> int:
    """Open the app on the model at `path`, or on the file picker; returns the exit code. The terminal is restored."""
    app = Workshop(path, options)
    try:
        code = app.run(mouse=app.settings.mouse)
    finally:
        with contextlib.suppress(EngineDiedError):
            app.host.kill()
        app.boards.end()
    return code if code is not None else app.return_code or 0
