"""The stale check: what a stage imports decides its bytes."""

from __future__ import annotations

import sys

import pytest

from ahp_toolkit.runtime import code
from ahp_toolkit.runtime.code import code_digest, imported_by

FILES = {
    "ahp_probe/__init__.py": "",
    "ahp_probe/stage.py": "from ahp_probe import one\n\n\ndef run():\n    return one.value()\n",
    "ahp_probe/one.py": "def value():\n    from .deep.two import value\n\n    return value()\n",
    "ahp_probe/deep/__init__.py": "",
    "ahp_probe/deep/two.py": '"""Two."""\nfrom ..three import value\n',
    "ahp_probe/three.py": 'def value():\n    """Three."""\n    return 3\n',
    "ahp_probe/other.py": "x = 1\n",
}


@pytest.fixture
def probe(tmp_path, monkeypatch):
    def write(**changed: str) -> str:
        for name, text in (FILES | {f"ahp_probe/{k}.py": v for k, v in changed.items()}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for kept in (code._normal_form, code._imports, code._file):
            kept.cache_clear()
        for name in [m for m in sys.modules if m.partition(".")[0] == "ahp_probe"]:
            del sys.modules[name]
        return code_digest("ahp_probe.stage")

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


def test_a_function_three_imports_deep_makes_the_stage_again(probe):
    assert probe() != probe(three="def value():\n    return 4\n")


def test_docstrings_comments_and_modules_that_nobody_imports_do_not(probe):
    before = probe()
    assert before == probe(three='def value():\n    """Another sentence."""\n    # a comment\n    return 3\n')
    assert before == probe(other="x = 2\n")


def test_a_package_stands_for_all_of_its_modules(probe):
    probe()
    before = code_digest("ahp_probe")
    probe(other="x = 2\n")
    assert code_digest("ahp_probe") != before


@pytest.mark.parametrize(
    ("stage", "decides"),
    [
        (
            "ahp_toolkit.stages.harvest",
            {"core.masks", "core.limits", "storage.images", "runtime.stage"},
        ),
        ("ahp_toolkit.sources.coco", {"sources.base", "sources.reading.shared", "sources.reading.coco_json"}),
        ("ahp_toolkit.stages.segment", {"segmenters.base", "storage.photos", "core.crops"}),
        ("ahp_toolkit.segmenters.centermask", {"segmenters.mask_rcnn", "nets.checkpoints"}),
        ("ahp_toolkit.stages.review", {"decisions.merge", "decisions.state", "core.hashing"}),
        ("ahp_toolkit.stages.synthesize", {"occlusion.search", "occlusion.paste", "core.hashing", "storage.images"}),
        ("ahp_toolkit.stages.scenes", {"storage.images"}),
    ],
)
def test_what_decides_the_bytes_of_each_stage_is_found(stage, decides):
    found = {m.removeprefix("ahp_toolkit.") for m in code._closure((stage,))}
    assert decides <= found and "runtime.progress" not in found
    assert imported_by(stage)
