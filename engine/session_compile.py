"""A session's call that hands its build over to the vendor's compiler."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from engine.compiler.results import WAYS, CompileSummary
from engine.errors import ConfigError, InputError
from engine.files.compiled import compiled
from engine.progress import Progress
from engine.quantization.dataset import Dataset, read_sample
from engine.quantization.preprocessing import InputSpec, input_specs
from engine.quantization.samples import Samples
from engine.session_state import SampleList, SessionState, path_from


class CompileSession(SessionState):
    """A session whose build can be compiled for the chip."""

    def compile(
        self,
        path: str | Path,
        samples: SampleList | None = None,
        *,
        way: str = "auto",
        analysis: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> CompileSummary:
        """Compile the built model for its target with the vendor's toolkit, and write the vendor's binary to `path`.

        A package that is exported later has the binary too.

        `samples`, as in `live`: the calibration samples, which some ways need and all are judged on. `way`: see
        engine.compiler.results.WAYS; 'auto' takes the one whose outputs come nearest to the float model's on the
        toolkit's own simulator. `analysis`: whether layers are compared as both simulators see them. `folder`: where
        the toolkit is installed, by default where RKNN_TUI_TOOLKIT names it or `rknn-tui compiler install` puts it.

        Raises CompilerError where the toolkit is missing, refuses, hangs or crashes; Cancelled.
        """
        # The process that never compiles does without these.
        from engine.compiler import compiling
        from engine.compiler.environment import find_python
        from engine.compiler.handing_over import as_given

        output, built, loaded = path_from(path, "path"), self._require_built("compile"), self._require_loaded("compile")
        if way != "auto" and (way not in WAYS or (way == "float16") != (built.stored.precision == "float16")):
            raise ConfigError(f"{way!r} is not a choice for this build", where="way", hint=f"auto or {', '.join(WAYS)}")
        python = find_python(None if folder is None else path_from(folder, "folder"))
        specs = input_specs(built.config, loaded.inputs)
        both = None
        if samples is not None:
            both = compiling.Samples(_read(samples, as_given(specs)), _read(samples, specs))
        order = compiling.Order(built, loaded.model, specs, both, way, analysis)
        summary = compiling.compile_model(order, output, python, progress)
        facts = {"way": summary.way}
        cosine = next(score.cosine for score in summary.ways if score.way == summary.way)
        if cosine is not None:
            facts["cosine"] = f"{cosine:.6f}"
        binary = compiled(output.read_bytes(), summary.target, f"rknn-toolkit2 {summary.toolkit}", facts)
        self._built = dataclasses.replace(built, stored=built.stored.with_compiled(binary))
        return summary


def _read(samples: SampleList, specs: tuple[InputSpec, ...]) -> Samples:
    if isinstance(samples, (str, Path)):
        return Samples(Dataset(samples, specs))
    if not isinstance(samples, (list, tuple)) or not all(isinstance(sample, (list, tuple)) for sample in samples):
        raise InputError("expected a dataset file or a list of samples", where="samples")
    return Samples([read_sample(sample, specs) for sample in samples])
