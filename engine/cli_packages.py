"""What `inspect` tells of a package besides its model: how and of what it was built, and what lies in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import FileError
from engine.files import package
from engine.files.members import AGAIN
from engine.text_tables import counted, printable, table


def package_facts(path: str | Path) -> tuple[dict[str, Any], str]:
    """The manifest of the package `path` as a document, and what a person should know of it as text.

    An encrypted one needs its key in the environment. Raises FileError and ConfigError.
    """
    manifest = package.read_manifest(path)
    try:
        return dict(manifest), "\n".join(_lines(manifest))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"has a damaged manifest: {error}", where=str(path), hint=AGAIN) from error


def _lines(manifest: Mapping[str, Any]) -> list[str]:
    config, provenance = manifest["config"], manifest.get("provenance", {})
    # The first versions had these among the rest.
    calibration = manifest.get("calibration", manifest)
    source = " ".join(part for part in (provenance.get("framework", ""), provenance.get("source", "")) if part)
    if provenance.get("sha256"):
        source += f", SHA-256 {provenance['sha256']}"
    batch = manifest["batch"]
    facts = [
        ("package", f"format {manifest['version']}, {manifest['precision']} for {manifest['target']}, batch {batch}"),
        ("custom string", config.get("custom_string", "")),
        ("built by", provenance.get("tool", "")),
        ("source", source),
        ("calibration", _calibration(calibration, config) if manifest["precision"] != "float16" else ""),
        ("preprocessing", _preprocessing(config)),
        ("corrections", _corrections(manifest)),
    ]
    lines = [f"{name:18} {printable(text)}" for name, text in facts if text]
    for entry in manifest.get("compiled", ()):
        words = [entry["target"], f"compiler {entry['compiler']}" if entry.get("compiler") else ""]
        words += [f"{name} {text}" for name, text in entry.get("facts", {}).items()]
        lines.append(f"{'compiled for':18} {printable(', '.join(word for word in words if word))}")
    rows = [(name, f"{one['bytes']:,}", one["sha256"][:16]) for name, one in manifest["members"].items()]
    return [*lines, "", table(("member", "bytes", "SHA-256"), rows, numbers=(1,))]


def _calibration(calibration: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    words = [counted(calibration.get("samples", 0), "sample")]
    algorithm = calibration.get("algorithm") or config.get("quantized_algorithm", "normal")
    words.append(f"algorithm {algorithm}")
    if calibration.get("recipe"):
        words.append(f"recipe {calibration['recipe']}")
    if calibration.get("equalized"):
        words.append(f"{counted(len(calibration['equalized']), 'layer')} equalized")
    return ", ".join(words)


def _preprocessing(config: Mapping[str, Any]) -> str:
    names = (("mean_values", "mean"), ("std_values", "std"))
    words = [f"{word} {config[key]}" for key, word in names if config.get(key)]
    if any(config.get("quant_img_RGB2BGR", ())):
        words.append("RGB to BGR")
    return ", ".join(words)


def _corrections(manifest: Mapping[str, Any]) -> str:
    found = manifest.get("corrections", manifest)
    weights, biases = len(found.get("weights", ())), len(found.get("biases", ()))
    words = [counted(weights, "weight")] if weights else []
    if biases:
        words.append("1 bias" if biases == 1 else f"{biases:,} biases")
    return ", ".join(words)
