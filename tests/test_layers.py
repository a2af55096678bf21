"""Imports within the package: down the table of docs/architecture.md, never up, never in a circle.

Imports inside functions and those for type checkers only count as all others do. What a file imports when it is run as
a script (below `if __name__ == "__main__"`) does not count: nothing that imports the file meets it.
"""

import ast
import re
from pathlib import Path

import pytest

from flame_fitting import cli

PACKAGE = "flame_fitting"


def modules(root: Path) -> dict[str, Path]:
    """All modules of the package in `root` by their full names."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, known: set[str]) -> set[str]:
    """Modules of the package that a module's source imports, anywhere but below `if __name__ == "__main__"`."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in known else str(node.module))
    return found & known


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other (strongly connected components of more than one, by Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            start = stack.index(name)
            if len(stack) - start > 1 or name in graph[name]:
                found.append(set(stack[start:]))
            del stack[start:]

    for name in graph:
        if name not in number:
            visit(name)
    return found


def rows_of_table(text: str) -> list[list[str]]:
    """Names in the first column of the table below `## Parts`, row by row from the top."""
    table = text.split("## Parts", 1)[1].split("\n## ", 1)[0]
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]


def entry_of(module: str, path: Path) -> str:
    """The table's name for a module: its folder, its file, or `<stage>.py` for a command."""
    parts = module.split(".")
    if len(parts) > 2 or (len(parts) == 2 and path.name == "__init__.py"):
        return f"{parts[1]}/"
    stages = {stage.module for stage in cli.STAGES} - {"run_pipeline"}
    return "<stage>.py" if parts[-1] in stages else path.name


@pytest.fixture(scope="module")
def graph(repository: Path) -> dict[str, set[str]]:
    found = modules(repository)
    return {name: imports(path.read_text(encoding="utf-8"), set(found)) - {name} for name, path in found.items()}


@pytest.fixture(scope="module")
def row_of(repository: Path) -> dict[str, int]:
    """Row of the table by module, counted from the top."""
    rows = rows_of_table((repository / "docs" / "architecture.md").read_text(encoding="utf-8"))
    row_by_entry = {entry: number for number, row in enumerate(rows) for entry in row}
    entries = {module: entry_of(module, path) for module, path in modules(repository).items()}
    missing = sorted(module for module, entry in entries.items() if entry not in row_by_entry)
    assert not missing, f"docs/architecture.md has no row for {', '.join(missing)}"
    return {module: row_by_entry[entry] for module, entry in entries.items()}


def test_no_circle(graph: dict[str, set[str]]) -> None:
    assert circles(graph) == []


def test_nothing_imports_from_above(graph: dict[str, set[str]], row_of: dict[str, int]) -> None:
    upward = [f"{name} -> {other}" for name in graph for other in graph[name] if row_of[other] < row_of[name]]
    # a kernel's row is the lowest, so that this also says that kernels import nothing
    assert not upward, "\n".join(sorted(upward))


def test_kernels_stand_apart(graph: dict[str, set[str]]) -> None:
    for name, others in graph.items():
        inside = f"{name}.".startswith(f"{PACKAGE}.kernels.")
        assert not (inside and others), f"{name} imports {others}"
        if not inside and any(f"{other}.".startswith(f"{PACKAGE}.kernels.") for other in others):
            assert name.endswith(".fused"), f"{name} imports kernels"


def test_the_walk_sees_what_it_must() -> None:
    known = {"p", "p.a", "p.b", "p.c", "p.d"}
    source = (
        "from typing import TYPE_CHECKING\nimport p.a\nif TYPE_CHECKING:\n    from p import b\n"
        "def f():\n    from p.c import thing\nif __name__ == '__main__':\n    import p.d\n"
    )
    assert imports(source, known) == {"p.a", "p.b", "p.c"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert circles({"a": {"b"}, "b": set()}) == []
    assert rows_of_table("## Parts\n\n| part | role |\n|---|---|\n| `x.py`, `y/` | z `w` |\n## Next\n| `v` |\n") == [
        ["x.py", "y/"]
    ]
