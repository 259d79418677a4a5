"""The headless commands' arguments: names, usage, examples and parsers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from engine.cli_board_arguments import board_arguments, devices_arguments
from engine.cli_compile_arguments import (
    COMPILE_EXAMPLES,
    COMPILE_MORE,
    COMPILE_USAGE,
    COMPILER_EXAMPLES,
    COMPILER_MORE,
    COMPILER_USAGE,
    compile_arguments,
    compiler_arguments,
)
from engine.cli_cost_arguments import memory_arguments, perf_arguments
from engine.cli_options import UsageError, add_job_arguments, expand_arguments, flags
from engine.errors import nearest

VERBS = {
    "build": "convert and quantize a model into a package",
    "infer": "run a model or package on the simulator",
    "analyze": "compare the quantized model with the float model, layer by layer",
    "perf": "estimate the time that a model takes on a chip, layer by layer; no board, no samples",
    "memory": "estimate the memory that a model takes on a chip",
    "lint": "find what costs accuracy in a model, its samples or its precisions",
    "tune": "find the few layers that are worth a higher precision",
    "hybrid": "write the files of hybrid quantization, to edit and build from",
    "set": "change the precision or the range of layers in a cfg",
    "replay": "do again what a journal of the app says",
    "inspect": "show a model's inputs, outputs and layers",
    "ops": "list the operators that each framework's models may have, and which chips run them",
    "compile": "make what the chip runs of a model, with the vendor's compiler",
    "compiler": "install the vendor's compiler in an environment of its own, or tell what is there",
    "devices": "list the boards over adb and SSH, and what each of them is",
    "encrypt": "encrypt a package, or a file of the vendor's compiler, with a key of your own",
    "decrypt": "make the plain file again of what `encrypt` wrote",
    "demo": "build, analyse, repair and score the bundled model",
}

_USAGES = {
    "build": "MODEL (--dataset FILE | --float16 | --cfg FILE) [-o OUT.rknn] [options]",
    "infer": "MODEL FILE [FILE ...] [--save OUT.npz] [--device [ID]] [options]",
    "analyze": "MODEL [--dataset FILE] [--sample FILE ...] [--sources] [--device [ID]] [options]",
    "perf": "MODEL [--target CHIP,...] [--cfg FILE ...] [--layers] [--csv FILE] [--device [ID]] [options]",
    "memory": "MODEL [--target CHIP,...] [--cfg FILE ...] [--layers] [--csv FILE] [--device [ID]] [options]",
    "lint": "MODEL [--dataset FILE] [--sample FILE ...] [--strict] [options]",
    "tune": "MODEL --dataset FILE [-o OUT.rknn] [--cfg OUT.quantization.cfg] [options]",
    "hybrid": "MODEL --dataset FILE [--proposal [N]] [--folder DIR] [options]",
    "set": "MODEL [--cfg FILE] SELECTOR ... (PRECISION | --range MIN,MAX) [options]",
    "replay": "JOURNAL [--until N] [--folder DIR] [--dry-run] [options]",
    "inspect": "MODEL [options]",
    "ops": "[--framework NAME] [--target CHIP] [options]",
    "compile": COMPILE_USAGE,
    "compiler": COMPILER_USAGE,
    "devices": "[--facts] [--no-probe] [options]",
    "encrypt": "MODEL.rknn [-o OUT] [--level N] [--key-file FILE] [options]",
    "decrypt": "FILE [-o OUT] [--key-file FILE] [options]",
    "demo": "[--headless] [--worst N] [options]",
}

_EXAMPLES = {
    "build": """\
  {program} build mobilenet.onnx --dataset photos.txt --mean 128,128,128 --std 128,128,128 --target rk3588
  {program} build mobilenet.onnx --dataset photos.txt --algorithm auto --onnx corrected.onnx
  {program} build detector.onnx --float16 --input-size 1,3,480,480 -o detector-fp16.rknn
  {program} build detector.model --cfg detector.quantization.cfg
  {program} build model.onnx --config model.yaml --json""",
    "infer": """\
  {program} infer model.rknn photo.jpg
  {program} infer model.onnx --float16 --mean 128,128,128 --std 128,128,128 photo.jpg
  {program} infer two-inputs.rknn left.npy right.npy --data-format nchw --save outputs.npz""",
    "analyze": """\
  {program} analyze model.onnx --dataset photos.txt --worst 10
  {program} analyze model.rknn --sample photo.jpg --sources
  {program} analyze model.rknn --sample photo.jpg --json > report.json""",
    "perf": """\
  {program} perf detector.onnx --input-size 1,3,480,480 --target rk3588
  {program} perf detector.onnx --target rk3566,rk3588 --csv layers.csv
  {program} perf detector.onnx --cfg before.cfg --cfg after.cfg --worst 20
  {program} perf detector.rknn --layers --json > estimate.json
  {program} perf detector.rknn --device 515e9b401c060c0b --worst 10""",
    "memory": """\
  {program} memory detector.onnx --target rv1106
  {program} memory detector.onnx --target all --float16
  {program} memory detector.rknn --json > estimate.json""",
    "lint": """\
  {program} lint model.onnx --dataset photos.txt --mean 128,128,128 --std 128,128,128
  {program} lint model.rknn --dataset photos.txt --sample as-the-camera-gives-it.npy --strict""",
    "tune": """\
  {program} tune model.onnx --dataset photos.txt --algorithm auto -o model.rknn
  {program} tune model.rknn --dataset photos.txt --cosine 0.9995 --max-cost 0.2
  {program} tune model.rknn --dataset photos.txt --candidate 2 -o better.rknn
  {program} tune model.model --dataset photos.txt --cfg model.quantization.cfg""",
    "hybrid": """\
  {program} hybrid model.onnx --dataset photos.txt
  {program} hybrid model.onnx --dataset photos.txt --proposal 4 --folder work""",
    "set": """\
  {program} set detector.model op:concat float16
  {program} set detector.model block:model.22 type:int8 '!name:dfl' int16 --dry-run
  {program} set detector.model name:head/conv default
  {program} set detector.rknn --cfg detector.quantization.cfg scores --range -4,4""",
    "replay": """\
  {program} replay detector.rknn-tui.jsonl
  {program} replay detector.rknn-tui.jsonl --until 12 --folder again
  {program} replay detector.rknn-tui.jsonl --json > steps.json""",
    "inspect": """\
  {program} inspect model.onnx
  {program} inspect dynamic.onnx --input-size 1,3,224,224
  {program} inspect model.rknn --json""",
    "ops": """\
  {program} ops --framework tflite --target rk3566
  {program} ops --json""",
    "compile": COMPILE_EXAMPLES,
    "compiler": COMPILER_EXAMPLES,
    "devices": """\
  {program} devices
  {program} devices --facts
  {program} devices --json""",
    "encrypt": """\
  {program} encrypt model.rknn
  {program} encrypt model.rknn --level 3 --key-file ~/model.key -o delivery.rknn""",
    "decrypt": """\
  {program} decrypt model.crypt.rknn --key-file ~/model.key""",
    "demo": """\
  {program} demo --worst 5
  {program} demo --json""",
}


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every fault it finds."""
        raise UsageError(message, hint=f"see {self.prog} --help")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse `words` whatever the order of options and files. Raises UsageError with the nearest option's name."""
        arguments, unknown = self.parse_known_intermixed_args(expand_arguments(words))
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            flag = unknown[0].partition("=")[0]
            if flag.startswith("-"):
                raise UsageError(f"unknown option {flag}", hint=nearest(flag, options))
            raise UsageError(f"unexpected argument {unknown[0]!r}", hint=f"see {self.prog} --help")
        return arguments


def verb_parser(verb: str, program: str) -> Parser:
    """The arguments of one command; `program` is what it is called in its help."""
    parser = Parser(
        prog=f"{program} {verb}",
        usage=f"{program} {verb} {_USAGES[verb]}",
        description=f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.{_MORE.get(verb, '')}",
        epilog="examples:\n" + _EXAMPLES[verb].format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(program=program)
    if verb not in _WITHOUT_MODEL:
        parser.add_argument("model", metavar="MODEL", help=_MODELS.get(verb, "a model or package"))
    _ARGUMENTS.get(verb, _no_arguments)(parser)
    if verb in ("analyze", "demo"):
        parser.add_argument(
            "--worst", type=_count, metavar="N", help="show only the N layers with the lowest single cosine"
        )
    if verb not in _WITHOUT_BUILD:
        add_job_arguments(parser, several_targets=verb in ("perf", "memory"))
    screen = parser.add_argument_group("what is shown")
    screen.add_argument("--json", action="store_true", help="print one JSON document")
    screen.add_argument("-v", "--verbose", action="store_true", help="show stages, seconds and tracebacks")
    screen.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return parser


_WITHOUT_MODEL = ("demo", "replay", "ops", "compiler", "devices")
_WITHOUT_BUILD = ("demo", "replay", "set", "ops", "encrypt", "decrypt", "compiler", "devices")

_WITH_HYBRID = "a model, a package, or the .model of hybrid quantization"
_MODELS = {
    "build": "a model, or the .model of hybrid quantization with --cfg",
    "perf": _WITH_HYBRID,
    "memory": _WITH_HYBRID,
    "tune": _WITH_HYBRID,
    "hybrid": "a model",
    "compile": _WITH_HYBRID,
    "set": "the .model of hybrid quantization, or a package",
    "encrypt": "a package, or a .rknn of the vendor's compiler",
    "decrypt": "a file that `encrypt` wrote",
}

_ESTIMATE = """

An estimate, not a measurement, and made without samples: int8 unless --float16 or a cfg says otherwise. A package is
taken as it was built, and a .model as its cfg says. With --device the model runs on a board, and is measured there."""

_KEY = """

The key is a passphrase or 32 random bytes. It comes from --key-file (the file's first line, or its 32 bytes), from the
environment (RKNN_TUI_KEY is a passphrase, RKNN_TUI_KEY_FILE names a file), or is asked for."""

_MORE = {
    "compile": COMPILE_MORE,
    "compiler": COMPILER_MORE,
    "encrypt": f"""{_KEY} Without it
nobody opens the file again.

Protects the file where it is stored and on its way. Whoever loads the model needs the key, and has it in plain memory
then, a board too. Files that the vendor's tool encrypted are another thing.""",
    "decrypt": _KEY,
    "perf": _ESTIMATE,
    "memory": _ESTIMATE,
    "build": """

With --cfg, MODEL is the .model that `hybrid` wrote, and is built as the edited cfg says.""",
    "lint": """

A model is looked at as if it were built with exact ranges; a package as it is. Exit code 0 also where something was
found, unless --strict asks for 1.""",
    "tune": """

A model is built first, with the options given; then layers are put into a higher precision, few at a time, until the
wished cosine is reached on samples that the search does not see. Ctrl-C ends the search and keeps the best so far.""",
    "set": """

SELECTORs are words as on the app's filter line, each of which must hold: a part of a layer's name or operator, op:conv,
name:head, type:int8, block:model.4; a|b is one or the other, !word is not. PRECISION is int8, int16, float16, or
default, which takes the lines away. Nothing else in the cfg is changed, and nothing where it could not be built.""",
    "replay": """

The app keeps JOURNAL beside a model: what was done to it, a line each. The steps are done one after the other; each
tells the cosine that the edits then in force give. Files are written in DIR (default: JOURNAL's folder) only.""",
    "hybrid": """

Writes MODEL's .model, .data and .quantization.cfg. Edit custom_quantize_layers, or a row's min and max, in the last;
then `build` goes on.""",
}


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands without arguments of their own."""


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT.rknn", help="the package (default: MODEL's name, here)")
    parser.add_argument(
        "--onnx", metavar="OUT.onnx", help="also write the float model with corrected weights and biases"
    )
    parser.add_argument("--qdq", metavar="OUT.onnx", help="also write the quantized model as ONNX for other runtimes")
    parser.add_argument("--cfg", metavar="FILE", help="build as this edited .quantization.cfg says; MODEL is a .model")
    parser.add_argument("--data", metavar="FILE", help="the .data that belongs to the .model (default: that beside it)")


def _infer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="jpg, png, bmp or npy, one for each model input")
    parser.add_argument("--image", action="append", metavar="FILE", help="a further input file")
    parser.add_argument(
        "--data-format", choices=("nhwc", "nchw"), default="nhwc", help="layout of npy files (default nhwc)"
    )
    parser.add_argument(
        "--pass-through",
        action="append",
        type=flags,
        metavar="YES,NO",
        help="feed files without mean and std; bare for all of them, or --pass-through=yes,no for each",
    )
    parser.add_argument("--save", metavar="OUT.npz", help="write the outputs to a file")
    board_arguments(parser)


def _analyze_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sample",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="the sample, one file for each model input (default: the dataset's first)",
    )
    parser.add_argument(
        "--output-dir", default="snapshot", metavar="DIR", help="where all tensors are written (default snapshot)"
    )
    parser.add_argument(
        "--sources", action="store_true", help="also show which roundings the outputs' error comes from"
    )
    board_arguments(parser)


def _lint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sample",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="an input as the application gives it, one file for each model input, to compare with the dataset",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 if anything is found")


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT.rknn", help="write the repaired model as a package")
    parser.add_argument(
        "--cfg",
        metavar="OUT.quantization.cfg",
        help="write the layers as custom_quantize_layers; an existing file keeps its comments and order, and a .model "
        "is tuned from what it says (default: from the cfg beside it)",
    )
    parser.add_argument("--data", metavar="FILE", help="the .data that belongs to a .model (default: that beside it)")
    parser.add_argument(
        "--candidate", type=_count, metavar="K", help="take number K of the list (default: the marked one)"
    )
    wish = parser.add_argument_group("what is wished for")
    wish.add_argument("--cosine", type=_cosine, metavar="C", help="of the worst output (default 0.999)")
    wish.add_argument(
        "--max-cost", type=_share, metavar="SHARE", help="estimated extra time; 0.2 is a fifth longer (default: any)"
    )
    wish.add_argument("--max-layers", type=_count, metavar="N", help="layers in the higher precision (default: half)")
    wish.add_argument(
        "--precision", choices=("int16", "float16"), help="the higher precision (default float16, else int16)"
    )
    wish.add_argument("--jobs", type=_count, default=1, metavar="N", help="processes that search (default 1)")


def _hybrid_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--proposal",
        type=_count,
        metavar="N",
        help="propose layers for a higher precision, searching on N samples (default 1) as `tune` does",
    )
    parser.add_argument("--folder", default=".", metavar="DIR", help="where the files are written (default: here)")


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="SELECTOR", help="which layers; then the PRECISION")
    parser.add_argument("--cfg", metavar="FILE", help="the cfg to change (default: the one beside the .model)")
    parser.add_argument("--data", metavar="FILE", help="the .data that belongs to a .model (default: that beside it)")
    parser.add_argument("--range", type=_range, metavar="MIN,MAX", help="set the range of what the layers make instead")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="a .jsonl file that the app wrote")
    parser.add_argument("--until", type=_count, metavar="N", help="stop after line N of the journal")
    parser.add_argument("--folder", metavar="DIR", help="where files may be written (default: the journal's folder)")
    parser.add_argument("--dry-run", action="store_true", help="show the steps, and do nothing")


def _encrypt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT", help="the result (default: NAME.crypt.rknn beside MODEL)")
    parser.add_argument(
        "--level",
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="what it costs to try a passphrase, and to open the file: 32, 128 or 512 MB of memory (default 1)",
    )
    _key_arguments(parser)


def _decrypt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT", help="the result (default: NAME.rknn beside FILE)")
    _key_arguments(parser)


def _key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-file", metavar="FILE", help="where the key is; nobody else may read it")


def _ops_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--framework", metavar="NAME", help="onnx, tflite, tensorflow, caffe, darknet or pytorch")
    parser.add_argument("--target", metavar="CHIP", help="only where this chip runs them (default: all chips)")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--headless", action="store_true", help="do not open the app, also on a terminal")


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "build": _build_arguments,
    "infer": _infer_arguments,
    "analyze": _analyze_arguments,
    "perf": perf_arguments,
    "memory": memory_arguments,
    "lint": _lint_arguments,
    "tune": _tune_arguments,
    "hybrid": _hybrid_arguments,
    "set": _set_arguments,
    "replay": _replay_arguments,
    "ops": _ops_arguments,
    "compile": compile_arguments,
    "compiler": compiler_arguments,
    "devices": devices_arguments,
    "encrypt": _encrypt_arguments,
    "decrypt": _decrypt_arguments,
    "demo": _demo_arguments,
}


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _cosine(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return number


def _share(text: str) -> float:
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a share such as 0.2, got {text!r}")
    return number


def _range(text: str) -> tuple[float, float]:
    ends = [_number(part) for part in text.split(",")]
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] > ends[1]:
        raise argparse.ArgumentTypeError(f"expected a smallest and a largest value such as -1,4, got {text!r}")
    return ends[0], ends[1]


def _number(text: str) -> float:
    """NaN, which fits no range, for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
