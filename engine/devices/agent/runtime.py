"""A model of the vendor's compiler under the vendor's runtime on the board: librknnrt.so, or librknnmrt.so."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pathlib
import time
from typing import Any, Iterator, Sequence  # noqa: UP035 - Python 3.7 has them there

from . import layouts
from .library import Library, choose_cores, fault_of, flags_of, refuse_what_is_missing
from .library import ModelFault as ModelFault

_MOST_PORTS = 256
_MOST_PERF_TEXT = 16 << 20
_MOST_ELEMENTS = 1 << 30
_KEPT = frozenset({"int32", "uint32", "int64", "bool"})
"""Types of outputs that the runtime is not asked to convert: floats would lose digits of them."""
DUMP_FOLDER = "RKNN_DUMP_DIR"
"""The environment variable by which the runtime is told where to write the tensors of a run."""


def open_rknn(path: str, library: str, options: dict[str, Any]) -> RknnModel:
    """Open the model at `path` with the runtime at `library`, in this process.

    `options`: `core_mask` (a number, 0 for automatic), `perf` (times of layers, which make runs slower),
    `asynchronous` (results one frame late; the first run gives that of its own frame), `priority` ('high', 'medium',
    'low'), `batch_cores` (how many cores share a batch; 0 leaves it to the runtime), and `dump`: the folder that the
    runtime writes the tensors of each run to, or True where RKNN_DUMP_DIR names it already. Raises ModelFault.
    """
    folder = options.get("dump")
    if isinstance(folder, str) and folder:
        # Before the library is loaded, since it may read its environment then.
        os.environ[DUMP_FOLDER] = folder
    elif not folder:
        os.environ.pop(DUMP_FOLDER, None)
    return RknnModel(path, Library(library), options)


class RknnModel:
    """A model that is open under the runtime, until `close`. Not for several threads at once."""

    def __init__(self, path: str, library: Library, options: dict[str, Any]) -> None:
        """See `open_rknn`."""
        self._library = library
        self._perf = bool(options.get("perf"))
        self._table: str | ModelFault | None = None
        self._context = library.context(0)
        self._open = False
        self.api = self.driver = ""
        # Needed to ask for the version, and the same in all.
        self._structs = layouts.structures(layouts.NEWEST)
        refuse_what_is_missing(library, options)
        self._initialize(path, flags_of(options))
        self._open = True
        try:
            self._learn()
            choose_cores(library, self._context, options, self.api)
        except BaseException:
            self.close()
            raise

    def _initialize(self, path: str, flags: int) -> None:
        try:
            with pathlib.Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not 0 < size < 1 << 32:
                    raise ModelFault(0, f"a model of {size} bytes cannot be given to the runtime")
                # The pages of the file itself, so that the model is not twice in the board's memory.
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ModelFault(0, f"the model cannot be read: {error}") from None
        with contextlib.closing(content):
            view = (ctypes.c_char * size).from_buffer(content)
            try:
                # The address alone: a pointer made of the view would keep it, and the mapping open.
                start = ctypes.addressof(view)
                code = self._library.code("init", ctypes.byref(self._context), start, size, flags, None)
            finally:
                del view
        if code < 0:
            raise fault_of("rknn_init", code)

    def _learn(self) -> None:
        told = self._query(layouts.QUERY_SDK_VERSION, self._structs["rknn_sdk_version"]())
        self.api, self.driver = _text(told.api_version), _text(told.drv_version)
        self.version = layouts.version_of(self.api)
        self._structs = layouts.structures(layouts.layout_version(self.version))
        counts = self._query(layouts.QUERY_IN_OUT_NUM, self._structs["rknn_input_output_num"]())
        if counts.n_input > _MOST_PORTS or counts.n_output > _MOST_PORTS:
            raise ModelFault(0, f"the runtime tells of {counts.n_input} inputs and {counts.n_output} outputs")
        self._inputs = [self._attribute(layouts.QUERY_INPUT_ATTR, index) for index in range(counts.n_input)]
        self._outputs = [self._attribute(layouts.QUERY_OUTPUT_ATTR, index) for index in range(counts.n_output)]

    def _query(self, command: int, struct: Any) -> Any:
        """`struct`, filled. Raises ModelFault."""
        code = self._library.code("query", self._context, command, ctypes.byref(struct), ctypes.sizeof(struct))
        if code < 0:
            raise fault_of(f"rknn_query({command})", code)
        return struct

    def _attribute(self, command: int, index: int) -> dict[str, Any]:
        """What the runtime tells of an input or output, as plain data."""
        names = [self._structs["rknn_tensor_attr"]]
        # A version that is not told, or is told wrongly, is found by trying.
        names += [layouts.structures(one)["rknn_tensor_attr"] for one in ((2, 0), (1, 2))]
        fault = None
        for struct in names:
            asked = struct()
            asked.index = index
            try:
                return _plain(self._query(command, asked))
            except ModelFault as error:
                fault = fault or error
                if error.code != layouts.PARAMETER_INVALID:
                    break
        assert fault is not None
        raise fault

    def describe(self) -> dict[str, Any]:
        """Inputs and outputs, the versions of the runtime and the driver, and the text that the model carries.

        RV1103's and RV1106's runtime tells of inputs as the NPU itself has them.
        """
        self._check_open()
        custom = ""
        with contextlib.suppress(ModelFault):
            asked = self._query(layouts.QUERY_CUSTOM_STRING, self._structs["rknn_custom_string"]())
            custom = _text(asked.string)
        return {
            "inputs": [dict(one) for one in self._inputs],
            "outputs": [dict(one) for one in self._outputs],
            "api": self.api,
            "driver": self.driver,
            "custom_string": custom,
        }

    def run(self, inputs: Sequence[tuple[dict[str, Any], Any]]) -> list[tuple[dict[str, Any], bytes]]:
        """One inference on inputs in the model's order: each what it is (`dtype`, `layout`, `pass_through`, `shape`)
        and its bytes. Outputs are float32 but for integers and booleans, shaped as the model says.

        In asynchronous mode the outputs are those of the call before; the first call gives its own. Raises ModelFault.
        """
        self._check_open()
        given = self._given(inputs)
        self._start(given)
        with self._results() as outputs:
            found = [self._copied(place, one) for place, one in enumerate(outputs)]
            if self._perf:
                try:
                    self._table = self._perf_text()
                except ModelFault as error:
                    self._table = error
        return found

    def measure(
        self, inputs: Sequence[tuple[dict[str, Any], Any]], runs: int, warmup: int, lock: Any
    ) -> dict[str, list[float]]:
        """Microseconds of `runs` whole inferences after `warmup` others, by this process's clock (`call_us`) and by
        the runtime's own (`run_us`, empty where it has none). `lock` is held meanwhile. Raises ModelFault."""
        self._check_open()
        given = self._given(inputs)
        calls: list[float] = []
        told: list[float] | None = []
        with lock:
            for number in range(warmup + runs):
                start = time.perf_counter()
                self._start(given)
                with self._results():
                    asked = self._run_time() if told is not None else None
                passed = (time.perf_counter() - start) * 1e6
                if number < warmup:
                    continue
                calls.append(passed)
                if told is not None:
                    told = None if asked is None else [*told, asked]
        return {"call_us": calls, "run_us": told or []}

    def layer_table(self) -> str:
        """The runtime's own table of the times of layers in the last `run`. Raises ModelFault where there is none."""
        self._check_open()
        if self._library.mini:
            raise ModelFault(
                0,
                "the runtime of RV1103 and RV1106 does not tell times of layers",
                "compare whole runs there, or measure layers on another chip",
            )
        if not self._perf:
            raise ModelFault(0, "the model was not opened for times of layers", "open it with perf")
        if self._table is None:
            raise ModelFault(0, "there was no run yet", "run the model first")
        if isinstance(self._table, ModelFault):
            raise self._table
        return self._table

    def memory(self) -> dict[str, int | None]:
        """The bytes that the model takes: `weight`, `internal`, `dma`, `sram`, `sram_free`; None for what a runtime
        before 1.4 does not tell. Raises ModelFault."""
        self._check_open()
        full, early = (layouts.structures(one)["rknn_mem_size"] for one in (layouts.NEWEST, (1, 3)))
        try:
            told = self._query(layouts.QUERY_MEM_SIZE, full())
            known = self.version is None or self.version >= (1, 4)
        except ModelFault as error:
            if error.code != layouts.PARAMETER_INVALID:
                raise
            told, known = self._query(layouts.QUERY_MEM_SIZE, early()), False
        return {
            "weight": int(told.total_weight_size),
            "internal": int(told.total_internal_size),
            "dma": int(told.total_dma_allocated_size) if known else None,
            "sram": int(told.total_sram_size) if known else None,
            "sram_free": int(told.free_sram_size) if known else None,
        }

    def close(self) -> None:
        """Let the runtime end the model, once; may be called again. Never raises."""
        if self._open:
            self._open = False
            self._library.code("destroy", self._context)

    def _check_open(self) -> None:
        if not self._open:
            raise ModelFault(0, "the model is closed")

    def _given(self, inputs: Sequence[tuple[dict[str, Any], Any]]) -> tuple[Any, list[Any]]:
        """The runtime's structs of inputs, and what has to live as long as they do."""
        if len(inputs) != len(self._inputs):
            raise ModelFault(0, f"{len(inputs)} inputs were given to a model of {len(self._inputs)}")
        structs = (self._structs["rknn_input"] * max(1, len(inputs)))()
        kept = []
        for place, (told, content) in enumerate(inputs):
            view = memoryview(content).cast("B")
            wanted, size = self._inputs[place], view.nbytes
            _check_input(told, size, wanted)
            buffer = (ctypes.c_char * size).from_buffer(bytearray(view) if view.readonly else view)
            kept.append(buffer)
            one = structs[place]
            one.index, one.size, one.pass_through = place, size, int(bool(told.get("pass_through")))
            one.buf = ctypes.addressof(buffer)
            one.type = layouts.TYPES.index(told["dtype"])
            layout = told.get("layout") or (wanted["fmt"] if wanted["fmt"] in ("nchw", "nhwc") else "")
            one.fmt = layouts.FORMATS.index(layout)
        return structs, kept

    def _start(self, given: tuple[Any, list[Any]]) -> None:
        structs, kept = given
        self._library.call("inputs_set", self._context, len(kept), structs)
        self._library.call("run", self._context, None)

    @contextlib.contextmanager
    def _results(self) -> Iterator[Any]:
        """The runtime's structs of outputs, which are given back in any case."""
        count = len(self._outputs)
        outputs = (self._structs["rknn_output"] * max(1, count))()
        for place, told in enumerate(self._outputs):
            outputs[place].index = place
            outputs[place].want_float = int(told["dtype"] not in _KEPT)
        self._library.call("outputs_get", self._context, count, outputs, None)
        try:
            yield outputs[:count]
        finally:
            self._library.code("outputs_release", self._context, count, outputs)

    def _copied(self, place: int, output: Any) -> tuple[dict[str, Any], bytes]:
        told = self._outputs[place]
        dtype = told["dtype"] if told["dtype"] in _KEPT else "float32"
        size = layouts.TYPE_BYTES[dtype]
        for length in told["dims"]:
            size *= length
        if not output.buf or output.size < size:
            raise ModelFault(0, f"output {told['name']!r} has {output.size} bytes instead of {size}")
        return {"dtype": dtype, "shape": list(told["dims"])}, ctypes.string_at(output.buf, size)

    def _perf_text(self) -> str:
        told = self._query(layouts.QUERY_PERF_DETAIL, self._structs["rknn_perf_detail"]())
        if not told.perf_data:
            raise ModelFault(0, "the runtime gave no table of layers")
        raw = ctypes.string_at(told.perf_data, min(told.data_len, _MOST_PERF_TEXT))
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    def _run_time(self) -> float | None:
        """Microseconds of the last run by the runtime's own clock; None where it does not tell."""
        if self._library.mini:
            return None
        try:
            return float(self._query(layouts.QUERY_PERF_RUN, self._structs["rknn_perf_run"]()).run_duration)
        except ModelFault:
            return None


def _plain(told: Any) -> dict[str, Any]:
    """What the runtime tells of a tensor, in words. Raises ModelFault where that makes no sense."""
    dims = [int(length) for length in told.dims[: min(told.n_dims, 16)]]
    count = 1
    for length in dims:
        count *= length
    known = (
        told.n_dims <= 16
        and count <= _MOST_ELEMENTS
        and 0 <= told.type < len(layouts.TYPES)
        and 0 <= told.fmt < len(layouts.FORMATS)
        and 0 <= told.qnt_type < len(layouts.QUANTIZATIONS)
    )
    if not known:
        raise ModelFault(
            0,
            f"the runtime tells of a tensor of {told.n_dims} dimensions, {count} elements, type {told.type} and layout "
            f"{told.fmt}, which is not known here",
            "this runtime may be newer than this program knows",
        )
    return {
        "name": _text(told.name),
        "dims": dims,
        "fmt": layouts.FORMATS[told.fmt],
        "dtype": layouts.TYPES[told.type],
        "qnt": layouts.QUANTIZATIONS[told.qnt_type],
        "scale": float(told.scale),
        "zero_point": int(told.zp),
        "size": int(told.size),
    }


def _check_input(told: dict[str, Any], size: int, wanted: dict[str, Any]) -> None:
    """Refuse what the runtime would read beyond the end of."""
    name, dtype = wanted["name"], told.get("dtype")
    if dtype not in layouts.TYPE_BYTES:
        raise ModelFault(0, f"input {name!r} is {dtype}, which the runtime does not take")
    if told.get("layout", "") not in ("", "nchw", "nhwc"):
        raise ModelFault(0, f"input {name!r} has the layout {told.get('layout')!r}, which is not known")
    if told.get("pass_through"):
        right = wanted["size"]
        fits = size >= right
    else:
        right = layouts.TYPE_BYTES[dtype]
        for length in wanted["dims"]:
            right *= length
        fits = size == right
    if not fits or not size:
        raise ModelFault(-8, f"input {name!r} has {size} bytes of {dtype} instead of {right}", layouts.ERRORS[-8][1])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
