"""The steps of a person's edits: undo and redo lead back and forth over exactly what was done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.history import EditState, History

PRECISIONS = ["int8", "int16", "float16"]
NAMES = st.sampled_from("abc")
STATES = st.builds(
    EditState,
    st.dictionaries(NAMES, st.sampled_from(PRECISIONS)),
    st.dictionaries(NAMES, st.just((0.0, 1.0))),
    st.sampled_from(["", "1.0"]),
)


class Steps(RuleBasedStateMachine):
    """Compares a history with plain lists of the edits, and of their groups, before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.behind = [(EditState(), "")]
        self.ahead: list[tuple[EditState, str]] = []
        self.saved = EditState()

    @rule(state=STATES, group=st.sampled_from(["", "typing"]))
    def do(self, state: EditState, group: str) -> None:
        before, last = self.behind[-1]
        if self.history.do("step", state, group):
            kept = self.behind[:-1] if group and group == last and not self.ahead else self.behind
            self.behind, self.ahead = [*kept, (state, group)], []
        else:
            assert state == before

    @rule()
    def undo(self) -> None:
        assert (self.history.undo() is None) == (len(self.behind) == 1)
        if len(self.behind) > 1:
            self.ahead.append(self.behind.pop())

    @rule()
    def redo(self) -> None:
        assert (self.history.redo() is None) == (not self.ahead)
        if self.ahead:
            self.behind.append(self.ahead.pop())

    @rule()
    def settle(self) -> None:
        self.history.settle()
        self.behind[-1] = (self.behind[-1][0], "")

    @rule()
    def save(self) -> None:
        self.history.mark_saved()
        self.saved = self.behind[-1][0]

    @invariant()
    def is_where_the_lists_are(self) -> None:
        assert self.history.state == self.behind[-1][0]
        assert self.history.undoable == len(self.behind) - 1
        assert (self.history.unsaved == 0) == (self.history.state == self.saved)


TestSteps = Steps.TestCase


@given(STATES, STATES)
def test_what_differs_is_what_would_have_to_change(one: EditState, other: EditState) -> None:
    wishes = {name: other.wishes.get(name, "") for name in one.differing(other)}
    ranges = {name: other.ranges.get(name) for name in one.differing(other)}
    changed = one.with_wishes(wishes).with_ranges(ranges)
    assert (changed.wishes, changed.ranges) == (other.wishes, other.ranges)
    assert (one.differing(other) == ()) == ((one.wishes, one.ranges) == (other.wishes, other.ranges))


def test_the_order_of_the_lines_that_stay_is_kept() -> None:
    state = EditState({"a": "int8", "b": "int8", "c": "int8"}).with_wishes({"d": "int16", "b": "", "a": "float16"})
    assert list(state.wishes.items()) == [("a", "float16"), ("c", "int8"), ("d", "int16")]


def test_another_order_of_the_lines_is_a_step() -> None:
    history = History(EditState({"a": "int8", "b": "int8"}))
    assert not history.do("nothing", EditState({"a": "int8", "b": "int8"}))
    assert history.do("turned round", EditState({"b": "int8", "a": "int8"}))
    assert history.unsaved == 0


def test_a_change_of_the_text_alone_is_a_step_that_remembers_both_texts() -> None:
    history = History()
    assert history.do("typed", EditState(), "typing", text="b", text_before="a")
    assert history.do("typed", EditState(), "typing", text="c", text_before="b")
    step = history.undo()
    assert step is not None and (step.text_before, step.text) == ("a", "c")
    assert history.undoable == 0


def test_steps_of_a_group_are_one_until_it_is_settled() -> None:
    history = History()
    for width in (1.0, 2.0, 3.0):
        history.do("range", EditState(ranges={"a": (0.0, width)}), "nudge")
    history.settle()
    history.do("range", EditState(ranges={"a": (0.0, 4.0)}), "nudge")
    history.undo()
    assert history.state.ranges == {"a": (0.0, 3.0)}
    history.undo()
    assert history.state == EditState()


def test_what_comes_after_an_undo_is_a_step_of_its_own() -> None:
    history = History()
    history.do("range", EditState(ranges={"a": (0.0, 1.0)}), "nudge")
    history.do("other", EditState({"b": "int8"}))
    history.undo()
    history.do("range", EditState(ranges={"a": (0.0, 2.0)}), "nudge")
    history.undo()
    assert history.state.ranges == {"a": (0.0, 1.0)}
    history.undo()
    assert history.state == EditState()


def test_what_was_undone_is_forgotten_with_the_next_step_only() -> None:
    history = History()
    history.do("one", EditState({"a": "int8"}))
    history.undo()
    assert not history.do("nothing", EditState())
    assert history.redo() is not None
    history.undo()
    history.do("two", EditState({"b": "int8"}))
    assert history.redo() is None


def test_other_biases_are_unsaved() -> None:
    history = History()
    history.do("candidate 1", EditState({"a": "float16"}, biases="1.0"))
    assert history.unsaved == 2
    history.mark_saved()
    assert history.unsaved == 0
