"""What a session's model is estimated to take on a chip: time, cycles and memory, without a board or a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import onnx_ir as ir

from engine.cost.estimate import CostModel
from engine.cost.figures import FIGURES
from engine.cost.layer_costs import Machine
from engine.errors import ConfigError
from engine.estimates import ModelCosts, ModelEstimate
from engine.quantization.edits import Edits, edited
from engine.quantization.quantize import to_float16, uncalibrated
from engine.quantization.quantized import Quantized
from engine.quantization.traffic import float16_notes
from engine.session_state import SessionState
from engine.targets import Target, find_target

_MOST_SAMPLES = 1024


class _Costed(NamedTuple):
    """The cost models of one graph that were made already, by machine."""

    model: ir.Model
    machines: dict[Machine, CostModel]


class CostSession(SessionState):
    """A session that tells costs. They are estimates, also where a board is attached."""

    _costed: _Costed | None = None

    def estimate(
        self,
        target: str | None = None,
        *,
        float16: bool = False,
        wishes: Mapping[str, str] | None = None,
        cores: int = 1,
        batch: int | None = None,
    ) -> ModelEstimate:
        """Time, cycles and memory of the built model with its edits, on `target` (default: the config's).

        Where nothing is built, and where `float16` or `wishes` ask for something else, it is the loaded model as it
        would be built: in int8, or all in float16, with `wishes` (lines of custom_quantize_layers, tensor ->
        precision) on top; no dataset is needed, since time does not depend on ranges. `cores`: NPU cores that work on
        one inference. `batch`: samples in one inference, by default as many as it was built for.

        Raises OrderError before a model is loaded, ConfigError for a target, number of cores or batch that cannot be,
        and QuantizationError for wishes that the model or the target does not have.
        """
        machine = self._machine(target, cores, batch)
        quantized, built = self._as_costed(machine.target, float16, wishes)
        notes = (*_notes(quantized, machine), *self._elsewhere(machine.target, float16))
        return self._cost_model(quantized, machine).estimate(quantized.table, built, notes)

    def costs(self, target: str | None = None) -> ModelCosts:
        """The costs of the layers in short, as `estimate` has them for one core and one sample."""
        machine = self._machine(target, 1, 1)
        quantized, _ = self._as_costed(machine.target, False, None)
        return self._cost_model(quantized, machine).costs(quantized.table)

    def _machine(self, target: str | None, cores: int, batch: int | None) -> Machine:
        self._require_loaded("estimate")
        config = self.config if self._built is None else self._built.config
        chosen = config.target if target is None else find_target(target)
        if batch is None:
            batch = 1 if self._built is None else self._built.stored.batch
        most = int(FIGURES[chosen.name].cores.value)
        for name, value, limit in (("cores", cores, most), ("batch", batch, _MOST_SAMPLES)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                has = f"{chosen.name} has {most}" if name == "cores" else f"at most {limit}"
                raise ConfigError(f"cannot be {value!r}", where=name, hint=f"a whole number from 1 on; {has}")
        return Machine(chosen, cores, batch)

    def _as_costed(self, target: Target, float16: bool, wishes: Mapping[str, str] | None) -> tuple[Quantized, str]:
        """The model whose costs are asked for, and the precision that it is said to be built in."""
        loaded, built = self._require_loaded("estimate"), self._built
        if float16:
            quantized, name = Quantized(loaded.model, loaded.layers, to_float16(loaded.model)), "float16"
        elif built is not None:
            quantized, name = built.single, built.stored.precision
        else:
            config = dataclasses.replace(self.config, target_platform=target.name)
            table = uncalibrated(loaded.model, loaded.layers, config)
            quantized, name = Quantized(loaded.model, loaded.layers, table), self.config.precision
        if wishes:
            quantized = edited(quantized, Edits(dict(wishes)), target)
        return quantized, name

    def _cost_model(self, quantized: Quantized, machine: Machine) -> CostModel:
        if self._costed is None or self._costed.model is not quantized.model:
            self._costed = _Costed(quantized.model, {})
        made = self._costed.machines
        if machine not in made:
            made[machine] = CostModel(quantized.model, quantized.layers, machine)
        return made[machine]

    def _elsewhere(self, target: Target, float16: bool) -> tuple[str, ...]:
        built = self._built
        if built is None or float16 or built.config.target is target:
            return ()
        return (f"the model was built for {built.config.target.name}; precisions are as built",)


def _notes(quantized: Quantized, machine: Machine) -> tuple[str, ...]:
    notes = ["an estimate: nothing was measured"]
    if machine.cores > 1:
        notes.append(f"{machine.cores} cores share the layers that can be shared, and the memory's bandwidth")
    return (*notes, *float16_notes(quantized, machine.target))
