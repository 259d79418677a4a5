"""Run by the python that has the vendor's toolkit: builds what a JSON file lists, and tells figures of its log.

Nothing of the toolkit comes into the process of the tests.
"""

from __future__ import annotations

import json
import sys


def main(path: str) -> None:
    from rknn.api import RKNN

    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the toolkit's python runs this without the project
        jobs = json.load(file)
    for job in jobs:
        print(f"\nBUILD {job['output']}", flush=True)
        rknn = RKNN(verbose=True)
        rknn.config(target_platform=job["target"], **job["config"])
        check(rknn.load_onnx(model=job["model"]))
        if job.get("step1"):
            check(rknn.hybrid_quantization_step1(dataset=job["dataset"], proposal=False))
            continue
        quantized = job["dataset"] is not None
        check(rknn.build(do_quantization=quantized, dataset=job["dataset"]))
        check(rknn.export_rknn(job["output"]))
        rknn.release()
    print("\nDONE", flush=True)


def check(code: int) -> None:
    if code != 0:
        raise SystemExit(f"the toolkit returned {code}")


if __name__ == "__main__":
    main(sys.argv[1])
