"""The house rules: sizes, one direction of imports, no cycles, small functions, an instant ``ahp --help``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ahp_toolkit", "annotation", "baselines", "benchmark")
FILES = sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))
MODULES = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}
#: What each layer may import of ours, by prefix; the longest matching layer counts. Only wiring knows two stages.
MAY = {
    "ahp_toolkit.core": ("ahp_toolkit.core",),
    "ahp_toolkit.sources": ("ahp_toolkit.core", "ahp_toolkit.sources"),
    "ahp_toolkit.segmenters": ("ahp_toolkit.core", "ahp_toolkit.segmenters"),
    "ahp_toolkit.parsers": ("ahp_toolkit.core", "ahp_toolkit.parsers", "ahp_toolkit.sources.base"),
    "ahp_toolkit.occlusion": ("ahp_toolkit.core", "ahp_toolkit.occlusion"),
    "benchmark": ("ahp_toolkit.core", "ahp_toolkit.occlusion", "benchmark"),
    "baselines": ("ahp_toolkit", "baselines"),
    "annotation": ("ahp_toolkit", "annotation"),
}


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
    assert len(path.read_text().splitlines()) <= 400


def test_imports_go_one_way():
    wrong = []
    for name, used in GRAPH.items():
        layers = [k for k in MAY if name == k or name.startswith(k + ".")]
        allowed = MAY[max(layers, key=len)] if layers else PACKAGES
        wrong += [f"{name} imports {u}" for u in used if not any(u == a or u.startswith(a + ".") for a in allowed)]
    assert not wrong


def test_baselines_and_benchmark_do_not_know_each_other():
    for a, b in (("baselines", "benchmark"), ("benchmark", "baselines")):
        assert not [n for n, used in GRAPH.items() if n.startswith(a) and any(u.startswith(b) for u in used)]


def test_no_import_cycles():
    top = {n: {u for u in used if not u.endswith("__init__")} for n, used in GRAPH.items()}
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
