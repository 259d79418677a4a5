"""The session's calls that make a quantized model better: hybrid quantization, live edits, sources, tune, lint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

from engine.builds import Built, build
from engine.errors import Cancelled, ConfigError, DatasetError, OrderError, QuantizationError, nearest
from engine.files import hybrid_files
from engine.files.writing import replacing
from engine.progress import Progress
from engine.quantization.cfg_edit import with_wishes
from engine.quantization.dataset import Dataset
from engine.quantization.edits import Edits, edited
from engine.quantization.hybrid import apply_cfg, remarks
from engine.quantization.preprocessing import input_specs
from engine.quantization.samples import Sample, Samples, spread
from engine.quantization.table import from_cfg, to_cfg
from engine.quantization.traffic import float16_notes
from engine.session_cost import CostSession
from engine.session_state import Array, SampleList, path_from
from engine.summaries import AccuracyReport, BuildSummary, Finding, HybridSummary, SourceMap, TuneReport
from engine.tuning.jobs import Executor
from engine.tuning.lint import lint, lint_float
from engine.tuning.live import Live
from engine.tuning.quantizing import full_statistics
from engine.tuning.search import SampleSplit, Wish, tune
from engine.tuning.sources import source_map

_DEFAULT = Wish()
# All tensors of each are kept while sources are traced, and more of them tell little more.
_TRACED_SAMPLES = 4


class TuningSession(CostSession):
    """A session whose built model can be measured and changed."""

    def hybrid_step1(
        self,
        dataset: str | Path,
        *,
        rknn_batch_size: int = 1,
        proposal: bool = False,
        proposal_dataset_size: int = 1,
        folder: str | Path = ".",
        progress: Progress | None = None,
    ) -> HybridSummary:
        """Quantize, and write what is needed to go on in another process after an edit: {model}.model, {model}.data and
        {model}.quantization.cfg in `folder`. A cfg that was edited since is kept as .bak.

        With `proposal`, layers that are worth a higher precision are listed in the cfg: what `tune` finds with its
        default wish, searching on the first `proposal_dataset_size` samples and judging on others. The session is built
        as the cfg says.
        """
        loaded, progress = self._require_loaded("hybrid_step1"), progress or Progress()
        if isinstance(proposal_dataset_size, bool) or not isinstance(proposal_dataset_size, int):
            raise ConfigError(f"expected a number, got {proposal_dataset_size!r}", where="proposal_dataset_size")
        if proposal_dataset_size < 1:
            raise ConfigError("needs at least one sample", where="proposal_dataset_size")
        samples = Samples(Dataset(path_from(dataset, "dataset"), input_specs(self.config, loaded.inputs)))
        built, summary = build(loaded, self.config, samples, True, rknn_batch_size, progress)
        report, heading = None, ""
        if proposal:
            split = SampleSplit.of(samples, proposal_dataset_size)
            tuned = tune(
                built.single,
                split,
                self.config.target,
                bias_correction=self.config.bias_correction is not False,
                remedies=_remedies(built, split.search, progress),
                progress=progress,
            )
            if not tuned.report.complete:
                raise Cancelled("tune")
            report = tuned.report
            best = report.candidates[report.chosen].quality if report.chosen >= 0 else report.base
            heading = f"cosine {report.base.cosine:.5f} without, {best.cosine:.5f} with these"
            if tuned.chosen is not None:
                built = built.changed(tuned.chosen)
        stem = Path(loaded.path).stem
        paths = hybrid_files.write(path_from(folder, "folder"), stem, built.stored, heading=heading, source=loaded.path)
        self._built, self._simulator, self._tuned = built, None, None
        return HybridSummary(str(paths[0]), str(paths[1]), str(paths[2]), summary, report)

    def hybrid_step2(
        self,
        model_input: str | Path,
        data_input: str | Path,
        model_quantization_cfg: str | Path,
        *,
        progress: Progress | None = None,
    ) -> BuildSummary:
        """Build from what `hybrid_step1` wrote and a person edited; no model need be loaded before.

        Of the cfg, custom_quantize_layers and every row's min and max count; the scale follows. Raises
        QuantizationError listing everything that is wrong with the cfg, by line.
        """
        started, progress = time.perf_counter(), progress or Progress()
        progress.step("build", 0, 1)
        stored = hybrid_files.read(path_from(model_input, "model_input"), path_from(data_input, "data_input"))
        cfg = path_from(model_quantization_cfg, "model_quantization_cfg")
        quantized = apply_cfg(stored.quantized, hybrid_files.read_cfg(cfg), stored.config.target, where=str(cfg))
        stored = dataclasses.replace(stored, quantized=quantized)
        progress.step("build", 1, 1)  # cancelled here, the session stays as it is
        self._take_stored(stored, str(model_input), "hybrid")
        seconds = {"build": time.perf_counter() - started}
        notes = float16_notes(quantized, stored.config.target)
        rows = len(quantized.table.rows)
        return BuildSummary(stored.precision, stored.samples, rows, stored.batch, seconds, notes, stored.recipe)

    def cfg_wishes(self, path: str | Path) -> dict[str, str]:
        """The lines of custom_quantize_layers in the cfg at `path`, which `export_cfg` would replace; none if there is
        no such file. Raises QuantizationError for a file that is no cfg of the built model, FileError.
        """
        file, rows = path_from(path, "path"), self._require_quantized("cfg_wishes").single.table.rows
        if not file.is_file():
            return {}
        table = from_cfg(hybrid_files.read_cfg(file), where=str(file))
        unknown = next((name for name in (*table.wishes, *table.rows) if name not in rows), None)
        if unknown is not None:
            raise QuantizationError(
                f"the model has no row {unknown!r}: is it another model's?",
                where=str(file),
                hint=nearest(unknown, rows),
            )
        return table.wishes

    def export_cfg(self, path: str | Path) -> Path:
        """Write the built model's table as a cfg. Of an existing one only custom_quantize_layers is changed; a person's
        comments, order and ranges stay. Biases are in no cfg. Raises as `cfg_wishes` does.
        """
        built = self._require_quantized("export_cfg")
        self.cfg_wishes(path)
        file, stored = path_from(path, "path"), built.stored
        table = stored.quantized.table
        if file.is_file():
            text = with_wishes(hybrid_files.read_cfg(file), table.wishes, where=str(file))
        else:
            text = to_cfg(table, remarks(stored.recipe, stored.samples, stored.equalized, stored.quantized))
        with replacing(file) as target:
            target.write(text.encode())
        return file

    def edit(self, edits: Edits) -> None:
        """Give the built model these precisions and ranges in place of those that were wished for before.

        Raises QuantizationError for what the model or the target does not have; then nothing is changed.
        """
        built = self._require_quantized("edit")
        self._built = built.changed(edited(built.single, edits, built.config.target))
        self._simulator = None

    def live(self, samples: SampleList, *, progress: Progress | None = None) -> Live:
        """The built model, ready to be changed and measured over and over on `samples`.

        `samples`: a dataset file, or one list a sample, with one file or array a model input. The session itself stays
        as it is; `edit` brings it what was found.
        """
        built = self._require_quantized("live")
        return Live(built.single, list(self._samples(samples, built.config)), built.config.target, progress)

    def source_map(
        self, samples: SampleList, *, executor: Executor | None = None, progress: Progress | None = None
    ) -> SourceMap:
        """Where the error of the built model's outputs comes from, by up to 4 of `samples` (as in `live`)."""
        built = self._require_quantized("source_map")
        given = self._samples(samples, built.config)
        few = list(given.part(spread(len(given), _TRACED_SAMPLES)))
        return source_map(built.single, few, progress=progress, executor=executor)

    def _with_sources(
        self, report: AccuracyReport, sample: Sample, wanted: bool, progress: Progress | None
    ) -> AccuracyReport:
        """`report` with the source map of the same sample, where wanted, and each layer's share."""
        if not wanted:
            return report
        found = source_map(self._require_quantized("analyze").single, [sample], progress=progress)
        shares: dict[str, float] = {}
        for source in found.sources:
            place = source.layer or source.name
            shares[place] = shares.get(place, 0.0) + source.share
        lines = tuple(dataclasses.replace(line, share=shares.get(line.name, 0.0)) for line in report.layers)
        return dataclasses.replace(report, layers=lines, sources=found, seconds=report.seconds + found.seconds)

    def tune(
        self,
        samples: SampleList,
        *,
        wish: Wish = _DEFAULT,
        precision: str | None = None,
        executor: Executor | None = None,
        progress: Progress | None = None,
    ) -> TuneReport:
        """Search for the layers of the built model that are worth a higher precision; see engine.tuning.search.tune.

        `samples`, as in `live`, are shared out: the report's figures are of some that the search did not see. The
        session stays as it is until `take`. Biases are corrected anew for every candidate, unless the config says no.
        Cancelled after the first measurement, it reports the best so far. Raises ConfigError for a wish out of range.
        """
        built, progress = self._require_quantized("tune"), progress or Progress()
        _check_wish(wish)
        split = SampleSplit.of(self._samples(samples, built.config))
        self._tuned = tune(
            built.single,
            split,
            built.config.target,
            wish=wish,
            precision=precision,
            bias_correction=built.config.bias_correction is not False,
            remedies=_remedies(built, split.search, progress),
            progress=progress,
            executor=executor,
        )
        return self._tuned.report

    def take(self, candidate: int | None = None) -> None:
        """Make the built model what `tune` found: the candidate of this index, or by default the chosen one.

        Raises OrderError where nothing was found, or the model was built anew since.
        """
        built, tuned = self._require_built("take"), self._tuned
        if tuned is None:
            raise OrderError("nothing was tuned", where="take", hint="call tune first")
        index = tuned.report.chosen if candidate is None else candidate
        if not 0 <= index < len(tuned.models):
            raise OrderError(
                "tune found nothing to take" if not tuned.models else f"there is no candidate {candidate}", where="take"
            )
        self._built, self._simulator = built.changed(tuned.models[index]), None

    def lint(
        self,
        dataset: str | Path | None = None,
        inputs: Sequence[str | Path | Array] | None = None,
        *,
        progress: Progress | None = None,
    ) -> tuple[Finding, ...]:
        """What costs accuracy, or will: in the built model, or in the loaded one as if built with exact ranges.

        dataset: the calibration samples; a model that is not built needs it. inputs: a sample as the application gives
        it, one file or array a model input, to compare with them.
        """
        loaded, built, progress = self._require_loaded("lint"), self._built, progress or Progress()
        config = self.config if built is None else built.config
        samples = None if dataset is None else self._samples(path_from(dataset, "dataset"), config)
        inference = None if inputs is None else self._sample(inputs, config)
        if built is not None and built.stored.precision != "float16":
            single, statistics = built.single, built.statistics
            if samples is not None:
                statistics = full_statistics(single.model, samples, progress)
            return lint(
                single,
                config.target,
                statistics=statistics,
                samples=list(samples or ()),
                inference=inference,
                progress=progress,
            )
        if samples is None:
            raise DatasetError(
                "linting a model needs a dataset", where="dataset", hint="name a file that lists samples"
            )
        statistics = full_statistics(loaded.model, samples, progress)
        return lint_float(
            loaded.model,
            loaded.layers,
            statistics,
            config,
            samples=list(samples),
            inference=inference,
            progress=progress,
        )


def _remedies(built: Built, samples: Sequence[Sample], progress: Progress) -> list[dict[str, str]]:
    """What lint would change in precisions."""
    findings = lint(built.single, built.config.target, statistics=built.statistics, samples=samples, progress=progress)
    return [finding.wishes for finding in findings if finding.wishes]


def _check_wish(wish: Wish) -> None:
    """Raise ConfigError for what no search could fulfil."""
    if not isinstance(wish, Wish):
        raise ConfigError(f"expected a Wish, got {wish!r}", where="wish")
    cosine, cost, layers = wish.cosine, wish.cost, wish.layers
    if cosine is not None and not (_is_number(cosine) and 0 < cosine <= 1):
        raise ConfigError(f"expected a number above 0 and up to 1, or None, got {cosine!r}", where="wish.cosine")
    if cost is not None and not (_is_number(cost) and 0 <= cost < math.inf):
        raise ConfigError(f"expected a share such as 0.2, or None, got {cost!r}", where="wish.cost")
    if layers is not None and not (isinstance(layers, int) and not isinstance(layers, bool) and layers >= 1):
        raise ConfigError(f"expected a positive integer or None, got {layers!r}", where="wish.layers")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
