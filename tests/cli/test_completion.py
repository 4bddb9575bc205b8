"""Shell completion, in a real bash: commands, names of plug-ins, recipes, folders; torch is never imported for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from baselines.commands import RECIPE_NAMES
from baselines.training.recipes import RECIPES

AHP = Path(sys.executable).with_name("ahp")
ENV = os.environ | {"PATH": f"{AHP.parent}:{os.environ['PATH']}"}
bash = pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")


def asked(words: str, at: int) -> subprocess.CompletedProcess[str]:
    """One call as a shell's script makes it; fails when torch or the like was imported."""
    code = "import sys\nfrom ahp_toolkit.cli.main import main\ntry: main()\nfinally:\n"
    code += " bad = {'torch', 'fiftyone', 'cv2', 'pandas', 'numba', 'pyarrow'} & set(sys.modules)\n"
    code += " assert not bad, bad\n"
    env = ENV | {"_AHP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ahp b", ["build", "bench"]),
        ("ahp build --segmenter s", ["sam", "source_mask"]),
        ("ahp build --source o", ["objects365=", "openimages="]),
        ("ahp bench train p", ["pcnets", "pix2pix"]),
        ("ahp bench train pcnets --recipe s", ["small"]),
        ("ahp review resegment --segmenter d", ["deeplab"]),
        ("ahp build export --format k", ["kins"]),
    ],
)
def test_names_are_completed_without_torch(words, wanted):
    out = asked(words, len(words.split()) - 1)
    assert out.returncode == 0 and not out.stderr, out.stderr
    assert [line.partition(",")[2] for line in out.stdout.split()] == wanted


def test_recipes_named_on_the_command_line_are_those_there_are():
    assert set(RECIPE_NAMES) == set(RECIPES)


@bash
@pytest.mark.parametrize(
    ("words", "wanted"),
    [(["ahp", "doc"], "doctor"), (["ahp", "build", "--segmenter", "mask"], "mask_rcnn")],
)
def test_a_real_bash_completes_by_clicks_own_script(words, wanted):
    script = 'eval "$(_AHP_COMPLETE=bash_source ahp)"\n'
    script += f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'\n"
    script += "_ahp_completion ahp\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    out = subprocess.run(["bash", "--norc", "-c", script], env=ENV, capture_output=True, text=True, check=True)
    assert [f for f in out.stdout.split("\n") if f] == [wanted]
