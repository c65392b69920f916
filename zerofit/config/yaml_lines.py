"""YAML that remembers its lines, read as plain data: mappings with text keys, lists, text, numbers, true/false, null.

Scalars follow YAML 1.2 rather than PyYAML's 1.1: `1e-4` is a number, `no` and `2024-01-01` are text. A tab, a key given
twice, a key that is not text and any tag beyond plain data are errors.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from zerofit.config.errors import UserError

FLOAT = r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
SCALARS = (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", FLOAT, "-+0123456789."),
    ("null", r"(?:~|null|Null|NULL|)$", "~nN\0"),
    ("merge", r"<<$", "<"),
)
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")


class Loader(yaml.SafeLoader):
    """SafeLoader for plain data alone."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    yaml_constructors = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in {f"tag:yaml.org,2002:{kind}" for kind in PLAIN}
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                written = f"key {key.value}" if isinstance(key, yaml.ScalarNode) else "a list or mapping as a key"
                raise ConstructorError(None, None, f"{written} is not text; put it in quotes", key.start_mark)
            if key.value in first:
                problem = f"key {key.value} is given twice; the first is on line {first[key.value]}"
                raise ConstructorError(None, None, problem, key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


for _kind, _pattern, _starts in SCALARS:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), [c.strip("\0") for c in _starts])


@dataclass(frozen=True)
class Document:
    """A YAML text's value and where its parts stand."""

    value: Any
    root: yaml.Node | None

    def line(self, place: Sequence[str | int]) -> int | None:
        """Line (from 1) of the field at `place`, or of its nearest ancestor; None where only the root is left."""
        node, line = self.root, None
        for part in place:
            found = _child(node, part)
            if found is None:
                break
            node, line = found
        return line

    def has(self, place: Sequence[str | int]) -> bool:
        """Whether the text itself gives the field at `place`."""
        node = self.root
        for part in place:
            found = _child(node, part)
            if found is None:
                return False
            node = found[0]
        return True


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """The node under `part`, and the line of its key (of itself in a list)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # merged keys stand first and lose
            if key.value == part:
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None


def parse(text: str, where: str, *, numbered: bool = True) -> Document:
    """Parse one document. Raises UserError (`<where>:<line>: ...`, one line) on what is not YAML or not plain data.

    `numbered=False` leaves the line out, for a text that has just one.
    """
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        return Document(None if root is None else loader.construct_object(root, deep=True), root)
    except yaml.MarkedYAMLError as error:
        raise UserError(_describe(error, text, where, numbered)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a forbidden character, `!!int x`, endless nesting
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def _describe(error: yaml.MarkedYAMLError, text: str, where: str, numbered: bool) -> str:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be read"
    if mark is None:
        return f"{where}: {problem}"
    lines = text.splitlines()
    start = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in start[: len(start) - len(start.lstrip())]:
        problem = "a tab indents this line; YAML takes spaces alone"
    elif not isinstance(error, ConstructorError):
        problem = f"not YAML: {problem}"
    return f"{where}{f':{mark.line + 1}' if numbered else ''}: {' '.join(problem.split())}"
