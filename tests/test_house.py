"""The house rules: sizes, one direction of imports, no cycles, small functions, an instant ``ahp --help``."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ahp_toolkit", "annotation", "baselines", "benchmark")
FILES = sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))
MODULES = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}
#: The floors of docs/design.md, bottom up: a package imports those on floors below its own, and itself.
FLOORS = (
    ("ahp_toolkit.core",),
    ("ahp_toolkit.storage",),
    ("ahp_toolkit.sources", "ahp_toolkit.occlusion", "ahp_toolkit.runtime"),
    ("ahp_toolkit.nets", "ahp_toolkit.report", "ahp_toolkit.sample_world"),
    ("ahp_toolkit.decisions",),
    ("ahp_toolkit.segmenters", "ahp_toolkit.parsers", "benchmark"),
    ("ahp_toolkit.stages",),
    ("ahp_toolkit.export", "baselines"),
    ("ahp_toolkit.build",),
    ("annotation",),
    ("ahp_toolkit.cli",),
)
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}


def imports(name: str, path: Path) -> set[str]:
    """Dotted names of ours that a module imports, functions' own imports included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return {f for f in found if f.split(".")[0] in PACKAGES}


GRAPH = {name: {i for i in imports(name, path) if i in MODULES and i != name} for name, path in MODULES.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long(path):
    assert len(path.read_text().splitlines()) <= 500


def package_of(name: str) -> str | None:
    """The package of a floor that a module lies in; None for ``ahp_toolkit`` itself, the public surface."""
    return next((p for p in FLOOR if name == p or name.startswith(p + ".")), None)


def test_no_import_runs_up_or_beside():
    wrong = []
    for name, used in GRAPH.items():
        mine = package_of(name)
        for other in used:
            theirs = package_of(other)
            if mine and theirs and mine != theirs and FLOOR[theirs] >= FLOOR[mine]:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_baselines_and_benchmark_do_not_know_each_other():
    for a, b in (("baselines", "benchmark"), ("benchmark", "baselines")):
        assert not [n for n, used in GRAPH.items() if n.startswith(a) and any(u.startswith(b) for u in used)]


def test_no_import_cycles():
    # a package's top is its interface to users: it names modules above it
    top = {n: {u for u in used if "." in u} for n, used in GRAPH.items() if "." in n}
    seen: dict[str, int] = {}
    cycles = []

    def visit(node: str, trail: list[str]) -> None:
        seen[node] = 1
        for nxt in top[node]:
            if seen.get(nxt) == 1:
                cycles.append([*trail[trail.index(nxt) if nxt in trail else 0 :], node, nxt])
            elif nxt not in seen:
                visit(nxt, [*trail, node])
        seen[node] = 2

    for name in top:
        if name not in seen:
            visit(name, [])
    assert not cycles


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


def test_functions_are_small():
    long = [n for _, n in functions() if (n.end_lineno or 0) - n.lineno >= 50]
    total = sum(1 for _ in functions())
    assert len(long) <= 0.03 * total, [n.name for n in long]
    assert not [n.name for n in long if (n.end_lineno or 0) - n.lineno >= 60]


def test_folders_are_small():
    found = Counter(f.parent for f in FILES)
    assert not {str(d.relative_to(ROOT)): n for d, n in found.items() if n > 15}


#: Functions with more than six parameters, beside commands (their options) and compiled loops (their arrays).
WIDE = 18


def test_functions_have_few_parameters():
    wide = []
    for path, node in functions():
        made_by = " ".join(map(ast.unparse, node.decorator_list))
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([n for n in names if n not in ("self", "cls")])
        if count > 6 and "click" not in made_by and "njit" not in made_by and "command" not in made_by:
            wide.append(f"{path.relative_to(ROOT)} {node.name} {count}")
    assert len(wide) <= WIDE, wide


def test_no_private_name_is_taken_from_another_module():
    taken = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                names = [*(node.module or "").split("."), *(a.name for a in node.names)]
                taken += [f"{path.relative_to(ROOT)}: {n}" for n in names if n.startswith("_") and n[:2] != "__"]
    assert not taken


#: Words of a private language: a stranger would have to learn what they stand for here.
BANNED = {
    "about", "anew", "asked", "asks", "beyond", "brings", "gone", "handed", "heard", "lacking", "lacks", "laid",
    "louder", "nowhere", "said", "standing", "stands", "stood", "told", "unite", "wish", "word", "words",
}  # fmt: skip
#: How many identifiers of a package still have one; what is not named here has none. Only ever lower these.
LEFT = {"baselines": 2}


def identifiers(tree: ast.AST):
    """Every name that a module defines or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.arg, ast.keyword)):
            yield node.arg or ""
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name


def test_no_identifier_is_of_a_private_language():
    found = Counter[str]()
    for name, path in MODULES.items():
        for identifier in identifiers(ast.parse(path.read_text())):
            pieces = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)
            found[package_of(name) or name] += sum(piece.lower() in BANNED for piece in pieces)
    assert not {p: n for p, n in found.items() if n > LEFT.get(p, 0)}


def test_every_command_answers_help_at_once_without_torch():
    code = "import sys\nfrom ahp_toolkit.cli.main import ahp\n"
    code += "try: ahp(['--help'], standalone_mode=False)\nexcept SystemExit: pass\n"
    code += "bad = {'torch', 'fiftyone', 'cv2', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)\nassert not bad, bad\n"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert out.returncode == 0, out.stderr
    assert "build" in out.stdout


def test_no_path_of_one_machine_and_no_binary():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    bad = [f for f in listed if f.endswith((".pth", ".pt", ".jpg", ".jpeg", ".npz", ".ckpt", ".safetensors"))]
    assert not bad
    large = [f for f in listed if (ROOT / f).exists() and (ROOT / f).stat().st_size > 2**20]
    assert not large


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1000
