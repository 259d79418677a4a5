"""The agent's command line: `start` begins its life on a board, `model` is the process of one model."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import Any

from .protocol import Header


def _open_rknn(header: Header) -> Any:
    from .runtime import open_rknn

    return open_rknn(header["path"], header["library"], header["options"])


def _open_onnx(header: Header) -> Any:
    from .onnx_model import open_onnx

    return open_onnx(header["path"], header["options"])


def main(arguments: list[str] | None = None) -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(prog="agent.pyz")
    calls = parser.add_subparsers(dest="call", required=True)
    start = calls.add_parser("start")
    start.add_argument("--library", default="", help="the vendor's librknnrt.so")
    start.add_argument("--idle", type=float, default=30.0, help="seconds without a client after which the agent ends")
    start.add_argument("--sys", default="", help="the kernel's folder of devfreq devices")
    start.add_argument("--meminfo", default="", help="the kernel's file on memory")
    model = calls.add_parser("model")
    model.add_argument("--folder", required=True, help="where the agents of this board live")
    model.add_argument("--pipe", type=int, required=True, help="the file descriptor of the agent's pipe")
    given = parser.parse_args(arguments)
    if given.call == "start":
        from .daemon import start as begin

        return begin(given.library, given.idle, given.sys, given.meminfo)
    # Each process imports its own half only: compiling takes a board's processor a while.
    from .child import serve

    pipe = socket.socket(fileno=given.pipe)
    serve(pipe, {"rknn": _open_rknn, "onnx": _open_onnx}, given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
