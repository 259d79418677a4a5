"""Calibration samples: the dataset file (guide 3.5.4) that lists them, and the images and npy files it names."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import DatasetError, EngineError, InputError
from engine.quantization.preprocessing import InputSpec, check_finite, check_numeric, normalize, note, to_own_layout

Array = np.ndarray[Any, Any]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
SUFFIXES = (*IMAGE_SUFFIXES, ".npy")

MAX_DATASET_BYTES = 64 * 2**20
# 300 MB once decoded to RGB; cameras reach some 60 megapixels.
MAX_IMAGE_PIXELS = 100_000_000
_MEGAPIXELS = f"{MAX_IMAGE_PIXELS // 10**6} million"
# numpy's own writer stays under 64 KiB, the most that a version 1.0 header can tell of.
MAX_NPY_HEADER_BYTES = 2**16 + 16
# Problems of a dataset file that one message lists.
MAX_PROBLEMS = 5

_COLUMN = re.compile(r"""(?: "(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<bare>[^ \t]+) ) (?=[ \t]|$)""", re.VERBOSE)


class Dataset:
    """The samples that a dataset file lists, read one at a time, as often as wanted.

    The file is UTF-8 text: a sample a line, and in a line one path a model input, separated by spaces. Paths are
    relative to the file's folder; a path with spaces stands in quotes, which a model of one input does not need.
    Empty lines and lines that begin with # are skipped. Files are jpg, jpeg, png, bmp or npy, as `read_sample` takes.

    Iterating yields dicts from input name to array, ready for the model; nothing of a sample is kept.
    Raises DatasetError: on construction for a file that cannot be read, lines with a wrong number of paths, files that
    are missing or of another kind (several in one message, by line); while iterating for a sample that cannot be used.
    """

    def __init__(self, path: str | Path, specs: Sequence[InputSpec]) -> None:
        self.path = Path(path)
        self.specs = tuple(specs)
        self._samples: list[tuple[int, tuple[str, ...]]] = []
        problems: list[tuple[int, str, str]] = []
        for number, line in _sample_lines(_read_text(self.path)):
            try:
                names = self._names(line)
            except DatasetError as error:
                problems.append((number, error.what, error.hint))
            else:
                self._samples.append((number, names))
        if problems:
            raise self._problems(problems)
        if not self._samples:
            raise DatasetError("lists no samples", where=str(self.path), hint="write one image or npy path a line")

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for line, names in self._samples:
            # Yielded straight away: a local name would keep one sample alive while the next is read.
            yield self._read(line, names)

    def __getitem__(self, index: int) -> dict[str, Array]:
        return self._read(*self._samples[index])

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of sample `index`, counted from 0, one a model input. Raises IndexError as a list does."""
        return tuple(self.path.parent / name for name in self._samples[index][1])

    def _read(self, line: int, names: tuple[str, ...]) -> dict[str, Array]:
        sample = {}
        for name, spec in zip(names, self.specs, strict=True):
            try:
                sample[spec.name] = _read_file(self.path.parent / name, spec)
            except EngineError as error:
                raise DatasetError(
                    f"{name}: {error.what}", where=f"{self.path} line {line}", hint=error.hint
                ) from error
        return sample

    def _names(self, line: str) -> tuple[str, ...]:
        folder = self.path.parent
        if len(self.specs) == 1 and (" " in line or "\t" in line) and _is_file(folder / line):
            names: tuple[str, ...] = (line,)
        else:
            names = split_columns(line)
        if len(names) != len(self.specs):
            raise DatasetError(
                f"expected {_paths(len(self.specs))}, got {len(names)}",
                hint="one path a model input; put a path with spaces in quotes",
            )
        for name, spec in zip(names, self.specs, strict=True):
            _check_kind(Path(name), spec)
            if not _is_file(folder / name):
                elsewhere = not Path(name).is_absolute() and _is_file(Path(name))
                raise DatasetError(
                    f"{name} is a folder, not a file" if _is_folder(folder / name) else f"{name} does not exist",
                    hint="paths are relative to the dataset file's folder" if elsewhere else "",
                )
        return names

    def _problems(self, problems: list[tuple[int, str, str]]) -> DatasetError:
        hint = next((hint for _, _, hint in problems if hint), "")
        if len(problems) == 1:
            number, what, _ = problems[0]
            return DatasetError(what, where=f"{self.path} line {number}", hint=hint)
        shown = [f"line {number}: {what}" for number, what, _ in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            shown.append(f"and {len(problems) - MAX_PROBLEMS} more lines")
        return DatasetError("; ".join(shown), where=str(self.path), hint=hint)


def read_sample(files: Sequence[str | Path | Array], specs: Sequence[InputSpec]) -> dict[str, Array]:
    """One sample, by input name: each array in its input's own shape, layout and dtype, mean and std applied.

    `files`: one path or array a model input, in order.
    Images are decoded to RGB (grey for an input of one channel; alpha is dropped, EXIF orientation not applied),
    resized with Pillow's bilinear filter, which averages over the covered area when it shrinks, as OpenCV's does not,
    and turned to BGR where `rgb2bgr` asks.
    npy files and arrays of four dimensions are NHWC; one that only fits as NCHW is taken as that, with a warning.
    Other ranks keep the model's shape. A missing batch is added, and one sample fills a batch of many by repetition.
    Raises DatasetError, `where` naming the file or input.
    """
    if isinstance(files, (str, Path, np.ndarray)):
        raise DatasetError(
            f"expected a list of {_paths(len(specs))}, got one {type(files).__name__}", hint="write it as [...]"
        )
    if len(files) != len(specs):
        names = ", ".join(repr(spec.name) for spec in specs)
        raise DatasetError(
            f"expected {_paths(len(specs))}, got {len(files)}", hint=f"one for each model input: {names}"
        )
    sample = {}
    for item, spec in zip(files, specs, strict=True):
        where = str(item) if isinstance(item, (str, Path)) else f"input {spec.name!r}"
        try:
            if isinstance(item, (str, Path)):
                sample[spec.name] = _read_file(Path(item), spec)
            elif isinstance(item, np.ndarray):
                sample[spec.name] = _from_array(item, spec)
            else:
                raise DatasetError(f"expected a path or a numpy array, got {type(item).__name__}")
        except EngineError as error:
            raise DatasetError(error.what, where=where, hint=error.hint) from error
    return sample


def split_columns(line: str) -> tuple[str, ...]:
    """The paths of a dataset line: separated by spaces or tabs, in single or double quotes where they contain them.

    A backslash is an ordinary character. Raises DatasetError for a quote at the start of a path that is not closed.
    """
    names: list[str] = []
    position = 0
    while True:
        while line[position : position + 1] in (" ", "\t"):
            position += 1
        if position == len(line):
            return tuple(names)
        match = _COLUMN.match(line, position)
        bare = match["bare"] if match else None
        if match is None or (bare is not None and bare[0] in "\"'"):
            raise DatasetError(
                f"the quote at column {position + 1} is not closed", hint="close it, with a space after it"
            )
        name = bare if bare is not None else match["double"] if match["double"] is not None else match["single"]
        if not name:
            raise DatasetError(f"the path at column {position + 1} is empty")
        names.append(name)
        position = match.end()


def _sample_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not str.splitlines: it also cuts at characters that a file name may contain.
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        content = line.strip(" \t")
        if content and not content.startswith("#"):
            yield number, content


def _read_text(path: Path) -> str:
    where = str(path)
    if _is_folder(path):
        raise DatasetError("is a folder, not a dataset file", where=where, hint="name the text file that lists samples")
    if not _is_file(path):
        raise DatasetError("the dataset file does not exist", where=where, hint="check the path")
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            content = file.read(size) if size <= MAX_DATASET_BYTES else b""
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=where) from error
    if size > MAX_DATASET_BYTES:
        raise DatasetError(f"is larger than {MAX_DATASET_BYTES >> 20} MB", where=where, hint="is it a list of paths?")
    hint = "expected a UTF-8 text file with one path a line"
    if b"\0" in content:
        raise DatasetError("is not a text file", where=where, hint=hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError("is not UTF-8 text", where=f"{where} line {line}", hint=hint) from error


def _read_file(path: Path, spec: InputSpec) -> Array:
    _check_kind(path, spec)
    if not _is_file(path):
        # Also keeps pipes and devices out, on which open() would wait for ever.
        raise DatasetError("is a folder, not a file" if _is_folder(path) else "does not exist")
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                return _from_array(_read_npy(file, spec), spec)
            return _finish(_read_image(file, spec), spec, "nhwc")
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}") from error


def _check_kind(path: Path, spec: InputSpec) -> None:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(s[1:] for s in SUFFIXES)
        raise DatasetError(f"{path.name!r} has an unknown extension {suffix!r}", hint=f"known: {known}")
    if suffix in IMAGE_SUFFIXES and (len(spec.shape) != 4 or spec.channels not in (1, 3)):
        raise DatasetError(
            f"{path.name!r} is an image, which does not fit input {spec.name!r} of shape {spec.shape}",
            hint="images need four dimensions and 1 or 3 channels; only npy fits this input",
        )


def _read_image(file: IO[bytes], spec: InputSpec) -> Array:
    """Uint8, NHWC with a batch of 1, resized to the input."""
    from PIL import Image, UnidentifiedImageError

    _, height, width, channels = spec.shape_in("nhwc")
    try:
        with warnings.catch_warnings():
            # Pillow warns of many pixels below the limit here, and raises only above it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # The other formats that Pillow knows bring decoders nobody needs here, one of which starts programs.
            opened = Image.open(file, formats=("JPEG", "PNG", "BMP"))
        with opened as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise DatasetError(f"has {image.width}×{image.height} pixels, more than the {_MEGAPIXELS} allowed")
            picture: Image.Image = image
            if image.mode.startswith("I"):
                # Pillow would clip 16-bit grey to 255 instead of scaling it.
                picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            picture = picture.convert("RGB" if channels == 3 else "L")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture).reshape(1, height, width, channels)
    except DatasetError:
        raise
    except UnidentifiedImageError as error:
        raise DatasetError("is not a JPEG, PNG or BMP image") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(f"has more pixels than the {_MEGAPIXELS} allowed") from error
    except Exception as error:
        # Decoders meet damaged files with OSError, SyntaxError, ValueError, struct.error and more.
        raise DatasetError(f"is a damaged image: {error or type(error).__name__}") from error
    return pixels[..., ::-1] if spec.rgb2bgr else pixels


def _read_npy(file: IO[bytes], spec: InputSpec) -> Array:
    """The array, after its header was found to fit the input and the file's size."""
    head = io.BytesIO(file.read(MAX_NPY_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        # Version 3.0 differs in the names of fields, and arrays with fields are of no use here.
        shape, fortran_order, dtype = read_header[version](head)
    except Exception as error:
        # The header is a Python literal; a damaged one fails in the tokenizer, the parser or numpy's checks.
        raise DatasetError("is not a valid npy file") from error
    check_numeric(dtype, spec)
    _fitting_layout(shape, spec)
    count = int(np.prod(shape, dtype=np.int64))
    promised, present = count * dtype.itemsize, file.seek(0, io.SEEK_END) - head.tell()
    if promised != present:
        fault = "truncated: its" if promised > present else "damaged: its"
        raise DatasetError(f"is {fault} header promises {promised} bytes of data, the file has {present}")
    file.seek(head.tell())
    values = np.fromfile(file, dtype=dtype, count=count)
    return values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)


def _from_array(array: Array, spec: InputSpec) -> Array:
    check_numeric(array.dtype, spec)
    shape, layout = _fitting_layout(array.shape, spec)
    if layout == "nchw":
        note(
            f"input {spec.name!r}: samples of shape {array.shape} are taken as nchw; "
            f"the dataset's npy files should be nhwc {spec.shape_in('nhwc')}"
        )
    check_finite(array, spec)
    return _finish(array.reshape(shape), spec, layout)


def _fitting_layout(shape: tuple[int, ...], spec: InputSpec) -> tuple[tuple[int, ...], str]:
    """`shape` with a batch, and the layout in which it fits the input, NHWC first. Raises InputError when none does."""
    images = len(spec.shape) == 4
    full = shape
    if len(shape) == len(spec.shape) - 1 and (images or spec.shape[0] == 1):
        full = (1, *shape)
    for layout in ("nhwc", "nchw") if images else ("",):
        expected = spec.shape_in(layout)
        if full == expected or (expected and full == (1, *expected[1:])):
            return full, layout
    expected_text = f"nhwc {spec.shape_in('nhwc')}" if images else str(spec.shape)
    raise InputError(f"expected shape {expected_text} for input {spec.name!r}, got {shape}")


def _finish(array: Array, spec: InputSpec, layout: str) -> Array:
    """From a sample with batch, in `layout`, to the model's own shape and dtype."""
    result = normalize(to_own_layout(array, spec, layout), spec)
    if result.shape != spec.shape:
        if not spec.layout:
            note(f"input {spec.name!r}: samples of shape {result.shape} are repeated to fill {spec.shape}")
        result = np.repeat(result, spec.shape[0], axis=0)
    return result


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # names too long, folders without permission
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _paths(number: int) -> str:
    return f"{number} path" if number == 1 else f"{number} paths"
