"""Triton kernels and the run-time type checker of the tests: what the checker wraps does not compile on a GPU."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from flame_fitting import kernels

MODULES = sorted(module.name for module in pkgutil.iter_modules(kernels.__path__, "flame_fitting.kernels."))


def decorated_with_jit(path: Path) -> list[str]:
    """Names of the functions in a file that `triton.jit` (or `autotune`, `heuristics` around it) decorates."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f.name for f in functions if any("triton." in ast.unparse(each) for each in f.decorator_list)]


def test_kernels_live_in_their_own_package(repository: Path) -> None:
    package = repository / "flame_fitting"
    holders = {path for path in package.rglob("*.py") if decorated_with_jit(path)}
    assert holders == set((package / "kernels").glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_nothing_else_lives_there(name: str, repository: Path) -> None:
    path = repository / f"{name.replace('.', '/')}.py"
    functions = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert functions and functions == decorated_with_jit(path)


@pytest.mark.parametrize("name", MODULES)
def test_the_type_checker_leaves_them_alone(name: str, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("the type checker is off")
    plain, checked = importlib.util.find_spec(name), importlib.util.find_spec("flame_fitting.fusion")
    assert plain is not None and type(plain.loader) is SourceFileLoader
    assert checked is not None and type(checked.loader) is not SourceFileLoader, "everything else is checked"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """`triton.language` of a Triton that keeps the function it is given, as its compiler does; no GPU is needed."""
    triton, language = types.ModuleType("triton"), types.ModuleType("triton.language")
    triton.jit = lambda function: function  # type: ignore[attr-defined]
    triton.language = language  # type: ignore[attr-defined]
    language.constexpr = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    real = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    yield language
    for name in MODULES:
        sys.modules.pop(name, None)
        vars(kernels).pop(name.rpartition(".")[2], None)
    for name, module in real.items():
        sys.modules[name] = module
        setattr(kernels, name.rpartition(".")[2], module)


@pytest.mark.parametrize("name", MODULES)
def test_triton_gets_the_function_of_the_source_and_the_names_it_uses(name: str, stand_in: types.ModuleType) -> None:
    module = importlib.import_module(name)
    functions: dict[str, Any] = {key: each for key, each in vars(module).items() if inspect.isfunction(each)}
    assert functions
    for kernel in functions.values():
        assert not hasattr(kernel, "__wrapped__")
        # "tl is not defined" was this: a wrapper's globals are those of the type checker's own module.
        assert kernel.__globals__ is vars(module) and kernel.__globals__["tl"] is stand_in
        assert Path(inspect.getsourcefile(kernel) or "") == Path(module.__file__ or "")
