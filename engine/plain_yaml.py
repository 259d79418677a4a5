"""Reads small YAML files of plain data, which nobody has to trust."""

from __future__ import annotations

from typing import Any

import yaml

from engine.errors import ConfigError

MAX_DEPTH = 8


def read_yaml(content: bytes, where: str) -> Any:
    """The plain data in a small YAML file, None for an empty one. Raises ConfigError naming the line that is wrong."""
    try:
        depth = 0
        for event in yaml.parse(content):
            # References let a small file stand for an enormous one, and no setting needs them.
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError("YAML references (*name) are not supported", where=where, hint="write the value out")
            # Time grows with the square of the depth.
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError("is nested too deeply", where=where, hint="a setting is a list of lists at most")
        return yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        line = f"{where} line {error.problem_mark.line + 1}" if error.problem_mark else where
        raise ConfigError(f"is not valid YAML: {error.problem}", where=line) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("is not valid YAML", where=where) from error
