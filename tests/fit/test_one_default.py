"""A value has one default, in the options: what solvers take repeats none."""

import ast
from pathlib import Path

import pytest

import flame_fitting

INNER = (
    "PhotometricConfig",
    "PhotometricWeights",
    "GeometryWeights",
    "OffsetWeights",
    "GaussNewtonSettings",
)
"""Classes that the fit fills from its options."""
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(flame_fitting.__file__).parent.rglob("*.py")]


def nodes(kind: type) -> list:
    return [node for tree in TREES for node in ast.walk(tree) if isinstance(node, kind)]


@pytest.mark.parametrize("name", INNER)
def test_what_the_options_give_has_no_default_of_its_own(name: str) -> None:
    (definition,) = (node for node in nodes(ast.ClassDef) if node.name == name)
    made = {
        one.target.id: one.value is not None
        for one in definition.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    calls = [node for node in nodes(ast.Call) if isinstance(node.func, ast.Name) and node.func.id == name]
    given = {keyword.arg for call in calls for keyword in call.keywords}
    assert calls and given & made.keys(), "the fit makes one from its options"
    assert not [field for field in given & made.keys() if made[field]]
    assert not any(call.args for call in calls), "by their names"
