"""Every function takes at most three arguments by position; more of them are named where it is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("launch", "policy", "pusht_env", "ros_nodes", "training")
MOST = 3

FOREIGN: dict[str, str] = {}
"""Functions whose signature is another library's, as `file:function`, and whose it is."""


def long_signatures(file: Path) -> list[str]:
    """The functions of a file with more arguments by position, besides `self` and `cls`."""
    return [
        f"{name}, {len(arguments)} by position: {', '.join(arguments)}"
        for name, arguments in functions(ast.parse(file.read_text(encoding="utf-8")))
        if len(arguments) > MOST and f"{file.relative_to(REPOSITORY)}:{name}" not in FOREIGN
    ]


def functions(
    node: ast.AST, around: tuple[str, ...] = (), in_class: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """All functions inside a node, by dotted name, with their arguments by position."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [argument.arg for argument in (*child.args.posonlyargs, *child.args.args)]
            is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in child.decorator_list)
            yield ".".join((*around, child.name)), names[1 if in_class and not is_static else 0 :]
            yield from functions(child, (*around, child.name))
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, (*around, child.name), in_class=True)
        else:
            yield from functions(child, around, in_class)


FILES = sorted(
    str(file.relative_to(REPOSITORY)) for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py")
)


@pytest.mark.parametrize("file", FILES)
def test_more_than_three_arguments_are_named(file: str) -> None:
    assert not long_signatures(REPOSITORY / file)


def test_what_counts_as_an_argument_by_position(tmp_path: Path) -> None:
    source = """
def by_name(a, b, c, *, d): ...
def by_position(a, b, c, d): ...
class Thing:
    def method(self, a, b, c): ...
    @staticmethod
    def static(a, b, c, d=0): ...
    @classmethod
    def made(cls, a, b, c, d): ...
def outer():
    if True:
        async def inner(a, /, b, c, d): ...
"""
    found = {name: len(arguments) for name, arguments in functions(ast.parse(source))}
    assert found == {
        "by_name": 3,
        "by_position": 4,
        "Thing.method": 3,
        "Thing.static": 4,
        "Thing.made": 4,
        "outer": 0,
        "outer.inner": 4,
    }
