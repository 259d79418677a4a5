"""What a person is told of precisions: in what each layer computes, what is rounded on the way, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.quantization.table import Row, Table
from engine.quantization.traffic import Traffic, computing, float16_notes, in_words, keeping, traffic
from engine.session import Session
from engine.targets import find_target
from tests.simulated import wished
from tests.small_networks import built, network, random

BODY = """
a = Conv (x, w, b)
c = Conv (a, w)
r = Relu (c)
b1 = Tanh (r)
b2 = Sigmoid (r)
s, t = Split <axis = 1, num_outputs = 2> (b2)
best = ArgMax <axis = 1> (b1)
y = Concat <axis = 1> (s, t)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    proto = network({"x": (1, 4, 5, 5)}, BODY, {"w": random(4, 4, 1, 1), "b": random(4)}, ["y", "best"])
    return built(tmp_path_factory.mktemp("traffic"), proto, [[random(1, 4, 5, 5)]])


def words(session: Session, name: str, wishes: dict[str, str]) -> str:
    return in_words(name, traffic(wished(session, wishes)))


class TestTraffic:
    def test_without_wishes_everything_is_int8(self, session: Session) -> None:
        found = traffic(wished(session))
        assert list(found) == ["x", "a", "r", "b1", "b2", "s", "best", "y"]
        assert found["x"] == Traffic("int8", {}, {}, {"x": ("int8",)})
        assert found["r"] == Traffic("int8", {"a": "int8"}, {"a": ("int8",)}, {"r": ("int8",)})
        assert found["s"].writes == {"s": ("int8",), "t": ("int8",)}
        assert found["best"] == Traffic("", {"b1": "int8"}, {"b1": ("int8",)}, {"best": ("",)})
        assert not any(one.converted for one in found.values())

    def test_a_float16_layer_between_int8_layers(self, session: Session) -> None:
        found = traffic(wished(session, {"c": "float16", "r": "float16"}))
        assert found["r"] == Traffic("float16", {"a": "int8"}, {"a": ("float16",)}, {"r": ("float16", "int8")})
        assert found["a"].writes == {"a": ("int8", "float16")}
        assert found["b1"].reads == {"r": "float16"} and found["b1"].takes == {"r": ("int8",)}
        assert [name for name, one in found.items() if one.converted] == ["a", "r", "b1", "b2"]

    def test_a_parted_layer_names_both(self, session: Session) -> None:
        found = traffic(wished(session, {"r": "float16"}))
        assert found["r"].computes == "int8+float16" and found["r"].converted
        assert found["r"].takes == {"a": ("int8",)}

    def test_what_was_never_calibrated_is_read_as_it_is_stored(self, session: Session) -> None:
        rows = dict(session.table.rows)
        rows["a"] = Row("float16", 0.0, 0.0)
        quantized = wished(session)
        found = traffic(quantized.changed(table=Table(rows)))
        assert found["r"].computes == "int8"
        assert found["r"].reads == {"a": "float16"} and found["r"].takes == {"a": ("float16",)}
        assert found["a"].writes == {"a": ("float16",)}

    def test_integers_have_no_precision_whatever_is_wished(self, session: Session) -> None:
        found = traffic(wished(session, {"best": "float16"}))
        assert found["best"].writes == {"best": ("",)}

    def test_every_tensor_has_the_precision_of_its_node(self, session: Session) -> None:
        assert computing(wished(session, {"x": "int16", "c": "float16", "t": "float16"})) == {
            "x": "int16", "a": "int8", "c": "float16", "r": "int8", "b1": "int8", "b2": "int8",
            "s": "float16", "t": "float16", "best": "", "y": "int8",
        }  # fmt: skip


class TestWords:
    def test_a_layer_without_conversions(self, session: Session) -> None:
        assert words(session, "r", {}) == "computes in int8"
        assert words(session, "x", {}) == "is stored in int8"
        assert words(session, "best", {}) == "gives integers"

    def test_a_float16_layer_between_int8_layers(self, session: Session) -> None:
        assert words(session, "r", {"c": "float16", "r": "float16"}) == (
            "computes in float16; reads int8 `a`; its output is rounded to int8 for `b1`, `b2`"
        )

    def test_its_neighbours(self, session: Session) -> None:
        wishes = {"c": "float16", "r": "float16"}
        assert words(session, "a", wishes) == "computes in int8; its output is converted to float16 for `r`"
        assert words(session, "b1", wishes) == "computes in int8; reads float16 `r`"

    def test_a_parted_layer(self, session: Session) -> None:
        assert words(session, "r", {"r": "int16"}) == (
            "computes in int8 and int16; its output is rounded to int8 for `b1`, `b2`"
        )

    def test_an_input(self, session: Session) -> None:
        assert words(session, "x", {"x": "float16"}) == "is stored in float16; it is rounded to int8 for `a`"

    def test_a_layer_with_several_outputs(self, session: Session) -> None:
        assert words(session, "s", {"t": "float16"}) == (
            "computes in float16; reads int8 `b2`; `s` is stored in int8; `t` is rounded to int8 for `y`"
        )

    def test_a_recurrent_layer_that_writes_int8(self, tmp_path: Path) -> None:
        constants = {"w": random(1, 20, 3), "r": random(1, 20, 5)}
        proto = network({"x": (6, 1, 3)}, "h = LSTM <hidden_size = 5> (x, w, r)\ny = Tanh (h)", constants)
        quantized = wished(built(tmp_path, proto, [[random(6, 1, 3)]]))
        assert in_words("h", traffic(quantized)) == "computes in float16; reads int8 `x`; its output is stored in int8"


class TestKeeping:
    def test_maker_and_readers_are_needed(self, session: Session) -> None:
        quantized = wished(session)
        assert keeping(quantized, "r") == dict.fromkeys(["c", "r", "b1", "b2"], "float16")
        assert keeping(wished(session, {"c": "float16", "r": "float16", "b2": "float16"}), "r") == {"b1": "float16"}
        assert keeping(quantized, "r", "int16") == dict.fromkeys(["c", "r", "b1", "b2"], "int16")
        assert keeping(quantized, "r", "int8") == {}

    def test_an_input_has_no_maker(self, session: Session) -> None:
        assert keeping(wished(session), "x") == {"x": "float16", "a": "float16"}

    def test_readers_of_integers_convert_nothing(self, session: Session) -> None:
        assert keeping(wished(session), "b1") == {"b1": "float16"}

    def test_an_inner_tensor_is_a_matter_of_its_layer(self, session: Session) -> None:
        assert keeping(wished(session), "c") == {"c": "float16", "r": "float16"}


class TestTargetsWithoutFloat16:
    @pytest.mark.parametrize("target", ["rv1103", "rv1106"])
    def test_a_softmax_at_the_end_stays_int8(self, tmp_path: Path, target: str) -> None:
        proto = network({"x": (1, 9)}, "s = LeakyRelu (x)\ny = Softmax <axis = 1> (s)", {})
        session = built(tmp_path, proto, [[random(1, 9)]], target_platform=target)
        quantized = wished(session)
        assert {one.computes for one in traffic(quantized).values()} == {"int8"}
        assert float16_notes(quantized, find_target(target)) == ()

    def test_a_recurrent_layer_is_told_of(self, tmp_path: Path) -> None:
        constants = {"w": random(1, 20, 3), "r": random(1, 20, 5)}
        proto = network({"x": (6, 1, 3)}, "h = LSTM <hidden_size = 5> (x, w, r)\ny = Tanh (h)", constants)
        session = built(tmp_path, proto, [[random(6, 1, 3)]], target_platform="rv1106")
        quantized = wished(session)
        assert float16_notes(quantized, find_target("rv1106")) == (
            "LSTM 'h' is simulated in float16, which rv1106 does not have: there it runs on the CPU, or not at all",
        )
        assert float16_notes(quantized, find_target("rk3588")) == ()
