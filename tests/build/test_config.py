"""The configuration: one tree is the command line, ``build.json`` and the reference page."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ahp_toolkit.build import config
from ahp_toolkit.build.config import Config, config_of, options_page
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.settings import as_json, every, from_json, options_of

ARGS = (
    "--min-area 20 --no-verify --segmenter sam --segmenter-weights w.pt --train debug --review provisional "
    "--decisions a.jsonl --decisions b.jsonl --places365 w.pth c.txt --merge senior --senior ann --least 2 "
    "--val-humans 7 --fold 2/5 --seed 3 --density val=0-0.1:1 --occluders 2 --occluder-source a,b --scale 0.2 0.5 "
    "--no-flip --initial-iou 0.5 --workers 2 -q --rebuild parse"
)


def parsed(*args: str) -> Config:
    found: list[Config] = []

    @click.command()
    @options_of(Config)
    def command(**given: object) -> None:
        found.append(config_of(given))

    result = CliRunner().invoke(command, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_the_command_line_makes_the_tree(tmp_path):
    c = parsed("--source", f"mine:coco={tmp_path}", "--out", str(tmp_path / "o"), *ARGS.split())
    assert c.sources == {"mine": config.Source("coco", tmp_path)} and c.out == tmp_path / "o"
    assert c.harvest == config.Harvesting(20, 5, False) and c.segment == config.Segmenting("sam", "w.pt")
    assert c.review.decisions == (Path("a.jsonl"), Path("b.jsonl")) and c.review.places365 == (
        Path("w.pth"),
        Path("c.txt"),
    )
    assert c.review.merge == config.Merging("senior", ("ann",), 2) and c.splits == config.Splitting(7, 56, (2, 5))
    s = c.synthesis
    assert (s.seed, s.densities, s.per_human, s.scale, s.flip) == (3, {"val": "0-0.1:1"}, 2, (0.2, 0.5), False)
    assert s.occluder_sources == ("a", "b") and c.engine.workers == 2 and c.run.quiet and c.run.rebuild == ("parse",)


def test_without_options_every_value_is_the_trees_default():
    assert parsed() == Config()


def test_build_json_gives_the_tree_back_without_what_belongs_to_a_run(tmp_path):
    c = parsed("--source", f"mine:coco={tmp_path}", "--out", str(tmp_path), *ARGS.split())
    config.write(c, {}, {})
    back = config.read(tmp_path)
    assert (back.harvest, back.review, back.splits, back.synthesis) == (c.harvest, c.review, c.splits, c.synthesis)
    assert back.sources == c.sources and back.engine == config.Config().engine and back.run.rebuild == ()
    about = json.loads((tmp_path / "build.json").read_text())
    assert about["formats"] == {"mine": "coco"} and about["options"]["fold"] == [2, 5]
    assert not {"workers", "engine", "quiet", "out"} & about["options"].keys()


def test_json_of_the_defaults_is_read_back():
    assert from_json(Config, json.loads(json.dumps(as_json(Config())))) == Config()


def test_a_value_of_another_type_is_one_line(tmp_path):
    (tmp_path / "build.json").write_text('{"roots": {}, "options": {"min_area": "many"}}')
    with pytest.raises(UserError, match="build.json: options: .*int"):
        config.read(tmp_path)


def test_names_are_unique_in_the_tree_and_each_has_a_sentence():
    names = [f.name for f in every(Config)]
    flags = [f.flag for f in every(Config) if f.flag]
    assert len(names) == len(set(names)) and len(flags) == len(set(flags))
    assert all(len(f.option.help) > 8 for f in every(Config))


def test_the_reference_has_every_option_once():
    page = options_page()
    for field in every(Config):
        if field.flag:
            assert page.count(f"| `{field.flag}` |") == 1
    assert "| `--gutter` | px | `5` | Border that no human may touch |" in page


@pytest.mark.parametrize("name", ["a b", "", "ü", "a/b", "a#b"])
def test_a_source_has_a_plain_name(tmp_path, name):
    with pytest.raises(UserError, match="letters, digits, - and _"):
        parsed("--source", f"{name}:coco={tmp_path}")


def test_two_roots_of_one_format_have_names_of_their_own(tmp_path):
    c = parsed("--source", f"coco={tmp_path}", "--source", f"b-1:coco={tmp_path}", "--source", f"lip={tmp_path}")
    assert c.formats == {"b-1": "coco", "coco": "coco", "lip": "lip"}
    assert c.synthesis.occluder_sources_of(c.formats, {}) == ("b-1", "coco")
    assert c.synthesis.occluder_sources_of(c.formats, {"lip": 3}) == ("b-1", "coco", "lip")
    with pytest.raises(UserError, match="given twice; give the second a name of its own: NAME:coco="):
        parsed("--source", f"coco={tmp_path}", "--source", f"coco={tmp_path}")
