"""The code that decides a stage's bytes, found by walking the imports that the stage makes."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

PACKAGES = ("ahp_toolkit", "annotation", "baselines", "benchmark")
#: Modules that show, log or distribute work and decide no byte of a table. A missing one only rebuilds too often.
_NO_BYTES = frozenset(
    f"ahp_toolkit.runtime.{m}"
    for m in (
        "code", "engines", "engine_options", "logging", "options", "progress", "ray_engine", "ray_start",
        "settings", "signals", "timing",
    )
)  # fmt: skip


def code_digest(*modules: str) -> str:
    """sha256 hex over modules and all that they import of the toolkit, directly or through others.

    Comments, docstrings and layout do not count, so a changed sentence makes no stage again. A plug-in that is chosen
    by name is no import: pass its module beside the stage's.

    Args:
        modules: dotted names; a package stands for all of its modules.
    """
    wanted = sorted(_closure(modules))
    h = hashlib.sha256()
    for name in wanted:
        h.update(f"{name}\x1f{_content(name)}\x1e".encode())
    return h.hexdigest()


def imported_by(module: str) -> frozenset[str]:
    """Modules that a module imports, functions' own imports included and those for type checking left out.

    Of the toolkit, and of the module's own top-level package where a plug-in comes from outside.
    """
    path = _file(module)
    return frozenset() if path is None else _imports(module, path, path.stat().st_mtime_ns)


def _closure(modules: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    todo = [m for name in modules for m in _members(name)]
    while todo:
        name = todo.pop()
        if name in found or name in _NO_BYTES:
            continue
        found.add(name)
        todo += imported_by(name)
    return found


def _members(module: str) -> list[str]:
    path = _file(module)
    if path is None or path.name != "__init__.py":
        return [module]
    inner = (p.relative_to(path.parent).with_suffix("") for p in path.parent.rglob("*.py"))
    return [module, *(".".join((module, *p.parts)).removesuffix(".__init__") for p in inner if p.name != "__init__")]


@cache
def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a name inside of a module
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _content(module: str) -> str:
    path = _file(module)
    return "" if path is None else _normal_form(path, path.stat().st_mtime_ns)


@cache
def _normal_form(path: Path, _modified: int) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _has_docstring(node):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


@cache
def _imports(module: str, path: Path, _modified: int) -> frozenset[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    roots = {*PACKAGES, module.partition(".")[0]}
    found: set[str] = set()
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.partition(".")[0] in roots}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.partition(".")[0] in roots:
                found |= {f"{base}.{a.name}" if _file(f"{base}.{a.name}") else base for a in node.names}
    return frozenset(found - {module})


def _running(node: ast.AST) -> list[ast.AST]:
    """Every node below one, those under ``if TYPE_CHECKING`` left out."""
    found, todo = [], [node]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
            continue
        found.append(node)
        todo += ast.iter_child_nodes(node)
    return found
