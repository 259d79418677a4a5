"""The arguments of `compile` and `compiler`, apart from what they do, so that asking for help loads little."""

from __future__ import annotations

import argparse

from engine.compiler.results import WAYS

COMPILE_USAGE = "MODEL [--dataset FILE] [--target CHIP] [-o OUT.rknn] [--way WAY] [options]"
COMPILER_USAGE = "install|status [--folder DIR] [--python PYTHON] [options]"

COMPILE_EXAMPLES = """\
  {program} compile mobilenet.onnx --dataset photos.txt --mean 128,128,128 --std 128,128,128 --target rk3588
  {program} compile tuned.rknn --dataset photos.txt -o mobilenet.rk3588.rknn --package tuned.rknn
  {program} compile detector.onnx --float16 --input-size 1,3,480,480 --target rk3566
  {program} compile model.rknn --dataset photos.txt --way qdq --json > report.json"""
COMPILER_EXAMPLES = """\
  {program} compiler status
  {program} compiler install --python python3.11
  {program} compiler install --folder /data/compiler"""

COMPILE_MORE = """

Only the vendor's compiler makes what the chip runs. Its toolkit works in an environment of its own, which
`compiler install` makes; RKNN_TUI_TOOLKIT may name the python of another one that has it. It is given the model with
our corrections, the samples, our precisions and our ranges. WAY says how: qdq, as a graph with Q/DQ nodes that hold our
scales; cfg, as a float graph with our ranges in the toolkit's cfg, which lets them only be narrowed; corrected, so, but
with the toolkit's own ranges; default, as the float graph before any correction, which the toolkit quantizes by itself;
auto tries these, and takes the one that comes out nearest to the float model on the toolkit's own simulator."""
COMPILER_MORE = """

`install` makes a Python environment with the vendor's toolkit, some GB large, in the user's data folder; `status` tells
what is there. Nothing but `compile` needs it."""


def compile_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `compile` besides those of the build."""
    parser.add_argument("-o", "--out", metavar="OUT.rknn", help="the binary (default: MODEL-CHIP.rknn, here)")
    parser.add_argument("--package", metavar="FILE.rknn", help="also write our own package, with the binary in it")
    parser.add_argument(
        "--way",
        choices=("auto", *WAYS),
        default="auto",
        help="how the quantization is handed over (default auto: the best)",
    )
    parser.add_argument("--cfg", metavar="FILE", help="build as this edited .quantization.cfg says; MODEL is a .model")
    parser.add_argument("--data", metavar="FILE", help="the .data that belongs to a .model (default: that beside it)")
    parser.add_argument(
        "--no-analysis", dest="analysis", action="store_false", help="do not compare the layers on both simulators"
    )
    parser.add_argument("--layers", action="store_true", help="show all layers (default: the 10 lowest)")
    parser.add_argument("--folder", metavar="DIR", help="where the vendor's toolkit was installed")


def compiler_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `compiler`."""
    parser.add_argument("what", choices=("install", "status"), help="make the environment, or tell what is there")
    parser.add_argument("--folder", metavar="DIR", help="where it is (default: in the user's data folder)")
    parser.add_argument("--python", metavar="PYTHON", help="what makes it (default: the python that runs this)")
    parser.add_argument(
        "--pip-option",
        action="append",
        metavar="OPTION",
        help="for pip, as --pip-option=--extra-index-url=URL (one with torch for the processor alone saves 4 GB); "
        "once for each",
    )
