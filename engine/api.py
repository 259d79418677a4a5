"""`RKNN`: the toolkit's calls, arguments and return values (guide 3.5), as a thin face over `Session`.

A call that fails says so in one line on standard error, `E call: what (where; hint)`, and returns the toolkit's failure
value: -1, or None where a result was asked for. No call raises for anything that a caller can cause or cure. Standard
output carries only what the guide says is printed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from engine.api_boards import RunningCalls, Runtime, RuntimeOptions, check_target, log_accuracy, runtime_for
from engine.api_calls import LOG, Console, log_build, log_check, log_error, log_proposal, stages, toolkit_call
from engine.api_loading import LoadingCalls
from engine.config import Config
from engine.core_masks import (
    NPU_CORE_0,
    NPU_CORE_0_1,
    NPU_CORE_0_1_2,
    NPU_CORE_1,
    NPU_CORE_2,
    NPU_CORE_ALL,
    NPU_CORE_AUTO,
)
from engine.errors import ConfigError, EngineError, InputError, OrderError
from engine.files import encryption, vendor
from engine.files.keys import KeySource
from engine.progress import Progress
from engine.session import Session
from engine.session_boards import runnable_file
from engine.session_state import Array, path_from
from engine.summaries import ModelSummary

__all__ = [
    "NPU_CORE_0",
    "NPU_CORE_0_1",
    "NPU_CORE_0_1_2",
    "NPU_CORE_1",
    "NPU_CORE_2",
    "NPU_CORE_ALL",
    "NPU_CORE_AUTO",
    "RKNN",
]


class RKNN(LoadingCalls, RunningCalls):
    """A model on its way from file to board, with the calls of the toolkit's own class.

    `verbose`: False prints warnings and errors; True also what each stage did and how long it took; 'Debug' also how
    equal (cosine and euclidean distance) each graph pass left the model's outputs on random input.
    `verbose_file`: with `verbose`, the same lines are appended to this file under a dated heading, so that a second
    run loses nothing.
    """

    NPU_CORE_AUTO = NPU_CORE_AUTO
    NPU_CORE_0 = NPU_CORE_0
    NPU_CORE_1 = NPU_CORE_1
    NPU_CORE_2 = NPU_CORE_2
    NPU_CORE_0_1 = NPU_CORE_0_1
    NPU_CORE_0_1_2 = NPU_CORE_0_1_2
    NPU_CORE_ALL = NPU_CORE_ALL

    def __init__(self, verbose: bool | str = False, verbose_file: str | None = None) -> None:
        self._console = Console(verbose, verbose_file)
        self._config: Config | None = None
        self._session: Session | None = None
        self._load_again: _Loader | None = None
        self._built = ""
        self._running: Runtime | None = None
        self._vendor: Path | None = None
        self._package: Path | None = None
        self._dataset: str | None = None

    @toolkit_call(-1)
    def config(
        self,
        mean_values: Sequence[Any] | None = None,
        std_values: Sequence[Any] | None = None,
        quant_img_RGB2BGR: bool | Sequence[bool] | None = None,
        quantized_dtype: str | None = None,
        quantized_algorithm: str | None = None,
        quantized_method: str | None = None,
        float_dtype: str | None = None,
        optimization_level: int | None = None,
        target_platform: str | None = None,
        custom_string: str | None = None,
        custom_stirng: str | None = None,
        equalization: bool | None = None,
        bias_correction: bool | None = None,
    ) -> int:
        """Set the model's parameters; see `engine.config.Config` for each. None leaves the default.

        `custom_stirng` is the guide's own spelling of `custom_string`; the last two are not the toolkit's.

        Returns 0, or -1 and nothing is changed. After a load the model is loaded again under the new parameters, and
        has to be built again.
        """
        if custom_string is not None and custom_stirng is not None:
            raise ConfigError("given as custom_string and as custom_stirng", where="custom_string", hint="give one")
        config = Config.from_mapping(
            {
                "mean_values": mean_values,
                "std_values": std_values,
                "quant_img_RGB2BGR": quant_img_RGB2BGR,
                "quantized_dtype": quantized_dtype,
                "quantized_algorithm": quantized_algorithm,
                "quantized_method": quantized_method,
                "float_dtype": float_dtype,
                "optimization_level": optimization_level,
                "target_platform": target_platform,
                "custom_string": custom_string if custom_string is not None else custom_stirng,
                "equalization": equalization,
                "bias_correction": bias_correction,
            }
        )
        if self._load_again is None:
            self._config = config
        else:
            self._load("config", config, self._load_again)
            LOG.warning("config: came after the model; it was loaded again with the new settings")
        return 0

    @toolkit_call(-1)
    def build(
        self, do_quantization: bool = True, dataset: str | None = None, rknn_batch_size: int | None = None
    ) -> int:
        """Quantize the loaded model with the samples listed in the file `dataset`, or make it float16.

        `rknn_batch_size`: frames in one inference; None is 1. Returns 0 or -1.
        """
        session = self._loaded()
        if self._built:
            raise OrderError("the model is already built", hint="load it again to build it another way")
        if do_quantization and dataset is None:
            raise ConfigError(
                "quantization needs calibration samples",
                where="dataset",
                hint="dataset='dataset.txt' lists them, one a line; or do_quantization=False",
            )
        batch = 1 if rknn_batch_size is None else rknn_batch_size
        with stages("build") as progress:
            built = session.build(
                do_quantization=bool(do_quantization), dataset=dataset, rknn_batch_size=batch, progress=progress
            )
        self._built, self._dataset = built.precision, dataset
        log_build("build", built)
        return 0

    @toolkit_call(-1)
    def export_rknn(self, export_path: str, *, compile_npu: bool = False) -> int:
        """Write the built model to `export_path`. Returns 0 or -1.

        `compile_npu`, which is not the toolkit's: with what the chip runs in it, compiled by the vendor's toolkit in an
        environment of its own; see `Session.compile`. The samples are those that `build` was given.
        """
        session = self._ready()
        if compile_npu:
            with tempfile.TemporaryDirectory() as folder, stages("export_rknn") as progress:
                summary = session.compile(Path(folder) / "npu.rknn", self._dataset, progress=progress)
            LOG.info("export_rknn: compiled for %s, way %s", summary.target, summary.way)
        path = session.export(export_path)
        self._package = path
        LOG.info("export_rknn: wrote %s", path)
        return 0

    @toolkit_call(-1)
    def load_rknn(self, path: str, *, key: KeySource | None = None) -> int:
        """Load a model that `export_rknn` wrote; unlike the toolkit, the simulator runs it. Returns 0 or -1.

        A .rknn of the vendor's compiler is taken too, and runs on a board only. `key`: of an encrypted one, as for
        `export_encrypted_rknn_model`.
        """
        session = Session(self._config)
        if vendor.is_vendor_file(path_from(path, "path")):
            runnable_file(Path(path))
            self._take(session, built="by the vendor's compiler")
            self._load_again, self._package, self._vendor = None, Path(path), Path(path)
            return 0
        summary = session.load_rknn(path, key=key)
        self._take(session, built=summary.built or "unknown")
        self._load_again, self._package = None, Path(path)
        return 0

    @toolkit_call(-1)
    def init_runtime(
        self,
        target: str | None = None,
        device_id: str | None = None,
        perf_debug: bool = False,
        eval_mem: bool = False,
        async_mode: bool = False,
        core_mask: int = NPU_CORE_AUTO,
    ) -> int:
        """Choose where the model runs: `target` None is the simulator, else a board with that chip. Returns 0 or -1.

        `device_id`: which board, where there are several; see `list_devices`. `perf_debug` lets `eval_perf` tell of
        every layer. `eval_mem` is taken and not needed. `async_mode`: `inference` returns the result of the frame
        before, and for the first frame its own; the simulator does not do that. `core_mask`, one of the constants
        NPU_CORE_..., says which cores work on an inference, and for the simulator how many its estimates are for; a
        target with fewer refuses it. After a board was lost, calling this again connects anew.
        """
        session = self._ready()
        options = RuntimeOptions(target, device_id, bool(perf_debug), bool(eval_mem), bool(async_mode), core_mask)
        check_target(options, session.config, self._vendor)
        self._stop()
        self._running = runtime_for(session, options, self._vendor)
        return 0

    @toolkit_call(None)
    def inference(
        self,
        inputs: Sequence[Array],
        data_format: str | Sequence[str] | None = None,
        inputs_pass_through: Sequence[int] | None = None,
    ) -> list[Array] | None:
        """Run the model where init_runtime said, on one array an input; returns float32 outputs, or None.

        `data_format`: 'nhwc' (also when None) or 'nchw', for four-dimensional inputs. An input whose
        `inputs_pass_through` is 1 is not normalized; an NPU then takes its bytes as they are.
        """
        runtime = self._initialized()
        if hasattr(inputs, "shape"):
            inputs = [cast(Array, inputs)]
        return runtime.infer(inputs, data_format, inputs_pass_through)

    @toolkit_call(-1)
    def accuracy_analysis(
        self,
        inputs: Sequence[str],
        output_dir: str = "./snapshot",
        target: str | None = None,
        device_id: str | None = None,
    ) -> int:
        """Compare the quantized model with the float model layer by layer on one sample. Returns 0 or -1.

        `inputs`: one jpg, png, bmp or npy path a model input. Both runs' tensors and `error_analysis.txt` are written
        to `output_dir`. With `target` the model also runs on a board, whose tensors go to a folder `runtime`.
        """
        session = self._ready()
        if self._vendor is not None:
            raise OrderError("a model of the vendor's compiler cannot be analysed", hint="build the source model")
        if self._built == "float16":
            raise OrderError("a float16 build has no quantization error to analyse", hint="build with do_quantization")
        if isinstance(inputs, (str, bytes, os.PathLike)):
            raise InputError("inputs is one path, not a list of paths", where="inputs", hint=f"inputs=[{inputs!r}]")
        with stages("accuracy_analysis") as progress:
            if target is None:
                report = session.analyze(inputs, output_dir=output_dir, progress=progress)
            else:
                check_target(RuntimeOptions(target, device_id), session.config, None)
                report = session.board_accuracy(device_id, inputs, output_dir, target=target, progress=progress)
        log_accuracy(report, output_dir)
        return 0

    @toolkit_call(-1)
    def hybrid_quantization_step1(
        self,
        dataset: str | None = None,
        rknn_batch_size: int | None = None,
        proposal: bool = False,
        proposal_dataset_size: int = 1,
    ) -> int:
        """Quantize, and write {model}.model, {model}.data and {model}.quantization.cfg here, to be edited.

        `proposal`: list layers that are worth a higher precision in the cfg, found on `proposal_dataset_size` samples.
        The model is then built as that cfg says. Returns 0 or -1.
        """
        session = self._loaded()
        if self._load_again is None:
            raise OrderError("the model is built already", hint="load the source model")
        if dataset is None:
            raise ConfigError("needs calibration samples", where="dataset", hint="a text file lists them, one a line")
        batch = 1 if rknn_batch_size is None else rknn_batch_size
        with stages("hybrid_quantization_step1") as progress:
            summary = session.hybrid_step1(
                dataset,
                rknn_batch_size=batch,
                proposal=bool(proposal),
                proposal_dataset_size=proposal_dataset_size,
                progress=progress,
            )
        self._stop()
        self._built, self._package = summary.build.precision, None
        log_build("hybrid_quantization_step1", summary.build)
        log_proposal("hybrid_quantization_step1", summary)
        return 0

    @toolkit_call(-1)
    def hybrid_quantization_step2(self, model_input: str, data_input: str, model_quantization_cfg: str) -> int:
        """Build from what step 1 wrote, with custom_quantize_layers and ranges as edited. Returns 0 or -1.

        Nothing need be called before, not even config: the settings are those of step 1.
        """
        session = Session(self._config)
        with stages("hybrid_quantization_step2") as progress:
            built = session.hybrid_step2(model_input, data_input, model_quantization_cfg, progress=progress)
        self._take(session, built=built.precision)
        self._load_again = None
        log_build("hybrid_quantization_step2", built)
        return 0

    @toolkit_call(-1)
    def export_encrypted_rknn_model(
        self,
        input_model: str,
        output_model: str | None = None,
        crypt_level: int = 1,
        *,
        key: KeySource | None = None,
    ) -> int:
        """Encrypt a .rknn, ours or the vendor's, by default as NAME.crypt.rknn beside it. Returns 0 or -1.

        `crypt_level`, 1 to 3: what it costs to try a passphrase, and to open the file. `key`: a passphrase (str), a raw
        key (32 bytes) or a key file (`pathlib.Path`); None takes RKNN_TUI_KEY or RKNN_TUI_KEY_FILE of the environment.
        """
        model = path_from(input_model, "input_model")
        output = None if output_model is None else path_from(output_model, "output_model")
        with stages("export_encrypted_rknn_model") as progress:
            path = encryption.export_encrypted_rknn_model(model, output, crypt_level, key, progress=progress)
        LOG.info("export_encrypted_rknn_model: wrote %s", path)
        return 0

    def release(self) -> None:
        """Let go of the model and of the log file; every later call fails and says so. May be called twice."""
        if self._console.closed:
            return
        session, self._session, self._load_again = self._session, None, None
        self._stop()
        with self._console.talking():
            try:
                if session is not None:
                    session.release()
            except EngineError as error:
                log_error("release", error)
        self._console.close()

    def _load_call(self, call: str, *arguments: Any) -> int:
        def load(session: Session, progress: Progress) -> ModelSummary:
            summary: ModelSummary = getattr(session, call)(*arguments, progress=progress)
            return summary

        self._load(call, self._config, load)
        return 0

    def _load(self, call: str, config: Config | None, load: _Loader) -> None:
        """Load into a fresh session, so that a failed load leaves the model that was there."""
        if config is None:
            raise OrderError("config has not been called", hint="call config first")
        session = Session(config, on_check=log_check if self._console.debug else None)
        with stages(call) as progress:
            summary = load(session, progress)
        self._take(session, built="")
        self._config, self._load_again = config, load
        LOG.info("%s: %d layers, %d parameters", call, len(summary.layers), summary.parameters)
        for note in summary.notes:
            LOG.info("%s: %s", call, note)

    def _take(self, session: Session, *, built: str) -> None:
        before, self._session = self._session, session
        self._stop()
        self._built, self._package, self._vendor = built, None, None
        if before is not None:
            before.release()

    def _loaded(self) -> Session:
        if self._session is None:
            raise OrderError("no model is loaded", hint="call load_onnx or load_rknn first")
        return self._session

    def _ready(self) -> Session:
        session = self._loaded()
        if not self._built:
            raise OrderError("the model is not built", hint="call build first")
        return session

    def _initialized(self) -> Runtime:
        self._ready()
        if self._running is None:
            raise OrderError("the runtime is not initialized", hint="call init_runtime first")
        return self._running

    def _package_bytes(self) -> int | None:
        package = self._package
        return package.stat().st_size if package is not None and package.is_file() else None

    def _stop(self) -> None:
        """Let go of the board that the model is on, if it is on one."""
        running, self._running = self._running, None
        if running is not None:
            running.close()


class _Loader(Protocol):
    """Loads a model into a session; kept, so that a later config can be applied from the start."""

    def __call__(self, session: Session, progress: Progress) -> ModelSummary: ...
