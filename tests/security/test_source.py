"""What the source itself promises: no pickle, no code from data, no shell, no unpacking, no wide permissions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ahp_toolkit.report.tables import Cell, Column, Table

ROOT = Path(__file__).parents[2]
FILES = [p for d in ("ahp_toolkit", "annotation", "baselines", "benchmark") for p in sorted((ROOT / d).rglob("*.py"))]

#: Modules that run code from what they read, or that nothing here needs.
NEVER_IMPORTED = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "yaml",
    "pty", "telnetlib", "xmlrpc", "xml.sax", "xml.dom", "lxml",
}  # fmt: skip
#: Calls that run code or a shell, or write where an archive says.
NEVER_CALLED = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv",
    "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput", "tempfile.mktemp", "os.tempnam",
    "np.fromregex", "pd.read_pickle", "pd.eval", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "shutil.unpack_archive", "markupsafe.Markup", "Markup",
}  # fmt: skip
NEVER_METHODS = {"extractall", "read_pickle", "to_pickle", "set_umask"}
#: One file reads every torch file; the cache of features is the one NumPy archive.
TORCH_LOAD, NUMPY_LOAD = {"ahp_toolkit/nets/checkpoints.py"}, {"benchmark/features/inception.py"}
#: git for a run's revision; a limited process of our own that reads a stranger's Parquet first.
SUBPROCESS = {"baselines/training/runs.py", "benchmark/grading/foreign.py"}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, dotted name of what is called, the call)."""
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def _keyword(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(k.value) for k in call.keywords if k.arg == name), None)


def _imports() -> Iterator[tuple[str, str]]:
    for path in FILES:
        for node in ast.walk(_tree(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            yield from ((path.relative_to(ROOT).as_posix(), n) for n in names)


def test_the_scan_sees_the_source() -> None:
    assert len(FILES) > 150
    assert sum(1 for _ in _calls()) > 5000


def test_nothing_that_runs_code_from_data_is_imported() -> None:
    found = {(f, n) for f, n in _imports() if n in NEVER_IMPORTED or n.split(".")[0] in NEVER_IMPORTED}
    assert not found


def test_nothing_evaluates_unpacks_or_starts_a_shell() -> None:
    found = {(f, n) for f, n, _ in _calls() if n in NEVER_CALLED or n.rpartition(".")[2] in NEVER_METHODS}
    assert not found


def test_every_torch_file_is_read_by_one_function_without_code() -> None:
    loads = [(f, c) for f, n, c in _calls() if n == "torch.load" or n.endswith("serialization.load")]
    assert {f for f, _ in loads} == TORCH_LOAD
    assert all(_keyword(c, "weights_only") is True for _, c in loads)
    fetched = [c for _, n, c in _calls() if n.endswith(("load_state_dict_from_url", "hub.load"))]
    assert not fetched


def test_numpy_archives_hold_no_objects() -> None:
    loads = [(f, c) for f, n, c in _calls() if n in ("np.load", "numpy.load")]
    assert {f for f, _ in loads} == NUMPY_LOAD
    assert all(_keyword(c, "allow_pickle") is False for _, c in loads)
    assert not [f for f, _, c in _calls() if _keyword_is(c, "allow_pickle", True)]


def _keyword_is(call: ast.Call, name: str, value: object) -> bool:
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def test_models_of_the_hub_bring_no_code_and_no_pickle() -> None:
    asked = [c for f, n, c in _calls() if n.endswith(".from_pretrained")]
    assert asked and all(_keyword_is(c, "trust_remote_code", False) for c in asked)
    assert not [f for f, _, c in _calls() if _keyword_is(c, "trust_remote_code", True)]
    models = [c for f, n, c in _calls() if n == "model.from_pretrained"]
    assert models and all(_keyword_is(c, "use_safetensors", True) for c in models)


def test_no_subprocess_goes_through_a_shell() -> None:
    users = {f for f, n in _imports() if n.split(".")[0] == "subprocess"}
    assert users <= SUBPROCESS | {f for f in users if f.startswith("ahp_toolkit/core/ray_")}
    for file, name, call in _calls():
        assert not _keyword_is(call, "shell", True), file
        if name.startswith("subprocess."):
            assert call.args and isinstance(call.args[0], (ast.List, ast.Name, ast.Attribute)), file


def test_pages_are_escaped_by_default() -> None:
    made = [c for _, n, c in _calls() if n.endswith("Environment") and n != "os.environ"]
    assert made and all(_keyword_is(c, "autoescape", True) for c in made)


def test_only_what_the_program_itself_made_is_trusted_as_html() -> None:
    """``|safe`` in templates: the page's script, the review's section, curves, and tables of the one printer."""
    found = {
        (p.name, part.split("{{")[-1].strip())
        for p in ROOT.rglob("*.html")
        if ".venv" not in p.parts and "out" not in p.relative_to(ROOT).parts
        for part in p.read_text().split("|safe")[:-1]
    }
    printed = re.compile(r"tables\.\w+|table_1|(s|t|speed)(\.\w+)?\.html\(\"[a-z ]+\"\)")
    own = {("report.html", "script"), ("report.html", "review"), ("report.html", "svg")}
    assert {f for f in found if not printed.fullmatch(f[1])} == own


def test_the_table_printer_escapes_whatever_it_is_given() -> None:
    evil = "<script>alert(1)</script>"
    cell = Cell(evil, note=evil, mark=evil, colour=evil)
    table = Table((Column("name", evil, hint=evil), Column("n")), ((evil, cell),))
    assert "<script" not in table.html(evil)


@pytest.mark.parametrize("word", ["/tmp", "/var/tmp", "0.0.0.0", "/dev/shm"])
def test_no_predictable_name_in_a_shared_folder_and_no_open_address(word: str) -> None:
    found = [
        p.name
        for p in FILES
        for node in ast.walk(_tree(p))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(word)
    ]
    assert not found


def test_nothing_is_made_writable_for_others() -> None:
    for file, name, call in _calls():
        if name.rpartition(".")[2] in ("chmod", "fchmod", "mkdir", "open", "makedirs"):
            modes = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
            assert not [m for m in modes if type(m) is int and 0o100 <= m <= 0o777 and m & 0o022], (file, name)
