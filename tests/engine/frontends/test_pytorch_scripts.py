"""Scripted and traced modules: control flow, lists, views, names, cuts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ConfigError, EngineError, ModelError, UnsupportedOperator
from engine.frontends.pytorch.translate import Wishes, translate
from engine.graph.provenance import sources
from tests.engine.frontends.pytorch_models import (
    check,
    check_scripted,
    check_traced,
    floats,
    graph_of,
    nn,
    scripted,
    torch,
    traced,
)


class Pyramid(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])
        self.last = nn.Sequential(nn.Conv2d(9, 4, 1), nn.ReLU(inplace=True))
        self.double = True

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found: list[torch.Tensor] = []
        for i, step in enumerate(self.steps):
            x = step(x)
            if i % 2 == 0 and self.double:
                x = x * 2
            found.append(x)
        joined = torch.cat(found, 1)
        height, width = joined.shape[-2:]
        total = 0
        while total < height * width:
            total += height
        assert total == height * width
        return {"boxes": self.last(joined), "scores": joined.mean(dim=[2, 3]) + float(total)}


def test_lists_loops_and_branches_that_sizes_decide() -> None:
    model = check_scripted(Pyramid(), floats(1, 3, 4, 6), tolerance=1e-4)
    assert [value.name for value in model.graph.outputs] == ["boxes", "scores"]


def test_modules_name_what_they_make() -> None:
    for make in (scripted, lambda module: traced(module, floats(1, 3, 4, 6))):
        model = check(make(Pyramid().eval()), floats(1, 3, 4, 6), tolerance=1e-4)
        assert [value.name for value in model.graph.inputs] == ["x"]
        made = {node.outputs[0].name: node for node in model.graph}
        assert made["steps.1"].op_type == "Conv"
        assert sources(made["steps.1"]) == ("steps.1",)
        assert made["steps.1"].inputs[1] is not None
        assert made["steps.1"].inputs[1].name == "steps.1.weight"
        assert made["last.0"].op_type == "Conv"


class Box:
    """A class of the model."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self.count = 1

    def grow(self, by: int) -> None:
        """Change both attributes."""
        self.x = self.x * by
        self.count += by


Box = torch.jit.script(Box)  # type: ignore[misc]


class Everyday(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.names, self.table = ["a", "b"], {"x": 1, "b": 2}

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        box = Box(x)
        box.grow(3)
        y = box.x + box.count
        for name in self.names:
            if name in self.table and name != "a":
                y = y * self.table[name]
        for i in range(1, x.size(0), 2):
            y = y + x[i]
        for i in range(x.size(0) - 1, -1, -1):
            y = y * x[i]
        count = 0
        while count < 3:
            count += 1
            if count == 2:
                continue
            y = y - 1
        squares = [i * i for i in range(4)]
        parts = (x, y, x + y)[1:]
        rows = [x[i] for i in range(x.size(0))]
        found = {"first": x}
        found["second"] = torch.stack(rows[::-1])
        del found["first"]
        text = "-".join(["1", "2"])
        return parts[0] + parts[1] * max(squares) + len(text), found["second"] / min(count, 2)


def test_plain_python_is_carried_out() -> None:
    check_scripted(Everyday(), floats(5, 3), tolerance=1e-4)


class Writes(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = torch.zeros_like(x)
        y[:, 1:3] = x[:, 1:3] * 2
        y[:, 0] = 1.0
        y[0] += x[0]
        flat = y.view(-1)
        flat[3] = 5.0
        every = y[:, ::2]
        every.mul_(3.0)
        first, second = y.split([2, 5], 1)
        second.add_(first[:, :1])
        z = x.clone()
        z[:, [1, 3]] = 0.0
        z[z > 1] = 0.5
        z.t().relu_()
        return y, every, z


def test_writing_into_parts_changes_the_whole() -> None:
    check_scripted(Writes(), floats(5, 7))
    check_traced(Writes(), floats(5, 7))


class Branches(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(x)
        if bool(x.sum() > 0):
            y = y + 1
        return torch.special.bessel_j0(x), y


def test_what_data_decides_is_refused_with_all_else_and_its_line() -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        translate(scripted(Branches().eval()), "net.pt", Wishes([[2, 3]]))
    text = str(caught.value)
    assert "aten::special_bessel_j0" in text
    assert "at test_pytorch_scripts.py:" in text
    assert "prim::If" in text or "aten::Bool" in text
    assert "torch.jit.trace" in text or "known at run time only" in text


def test_outputs_cut_off_what_is_not_supported() -> None:
    module = scripted(Branches().eval())
    model = graph_of(module, floats(2, 3), outputs=["y.1"])
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert model.graph.outputs[0].name == "y.1"
    with pytest.raises(ConfigError, match="no tensor 'nowhere'"):
        translate(scripted(Pyramid().eval()), "net.pt", Wishes([[1, 3, 4, 6]], None, ["nowhere"]))


class Unsafe(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 0].bernoulli_(0.5)
        return y


def test_what_an_unknown_operator_writes_to_is_not_read() -> None:
    with pytest.raises(UnsupportedOperator, match="bernoulli_"):
        translate(scripted(Unsafe().eval()), "net.pt", Wishes([[2, 3]]))


class Raises(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 3:
            raise ValueError("three channels, please")
        return x * 2


def test_errors_of_the_model_itself_are_told() -> None:
    with pytest.raises(ModelError, match="three channels, please"):
        translate(scripted(Raises().eval()), "net.pt", Wishes([[1, 4]]))


class Endless(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = 0
        while i >= 0:
            i += 1
        return x * i


class Huge(nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(1 << 20, 1 << 20)[0, 0] + torch.ones(1).expand(1 << 30).sum()


@pytest.mark.parametrize("module", [Endless, Huge])
def test_what_never_ends_or_fits_is_refused(module: Any) -> None:
    with pytest.raises(EngineError):
        translate(scripted(module().eval()), "net.pt", Wishes([[2, 3]]))


class Tokens(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 2.0) -> torch.Tensor:
        x = self.table(tokens) * scale
        return x if mask is None else x * mask


def test_inputs_that_index_hold_whole_numbers_and_others_may_be_left_out() -> None:
    module = scripted(Tokens().eval())
    model = translate(module, "net.pt", Wishes([[1, 3]]))
    assert [(value.name, value.dtype.name) for value in model.graph.inputs] == [("tokens", "INT64")]
    both = translate(module, "net.pt", Wishes([[1, 3], [1, 3, 1]]))
    assert [value.name for value in both.graph.inputs] == ["tokens", "mask"]


def test_sizes_must_fit_the_inputs() -> None:
    module = scripted(Pyramid().eval())
    with pytest.raises(ConfigError, match=r"'x'.*\[\[1, 3, 224, 224\]\]"):
        translate(module, "net.pt", Wishes())
    with pytest.raises(ConfigError, match="2 shapes for 1 inputs"):
        translate(module, "net.pt", Wishes([[1, 3, 4, 6], [1]]))
    with pytest.raises(ModelError, match="3 channels in 1 groups, not 4"):
        translate(module, "net.pt", Wishes([[1, 4, 4, 6]]))


def test_training_mode_is_left() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    script = torch.jit.script(module)
    script.eval()
    check(scripted(module.eval()), floats(3, 4))
    with pytest.raises(UnsupportedOperator, match="call eval"):
        translate(scripted(nn.Sequential(nn.Dropout(0.5)).train()), "net.pt", Wishes([[3, 4]]))
