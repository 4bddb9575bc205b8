"""What is refused before anything runs or is written, and the step that a build says comes next."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ahp_toolkit.build.checks import check_place, next_step
from ahp_toolkit.build.config import Config, Running
from ahp_toolkit.cli import main
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine
from ahp_toolkit.runtime.options import Share
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.storage.locations import place
from tests.cli.small import data


def run(*args: object) -> str:
    """The command line in this process; a UserError comes out as it is."""
    result = CliRunner().invoke(main.ahp, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(match: str, *args: object) -> None:
    with pytest.raises(UserError, match=match) as e:
        run(*args)
    assert len(str(e.value).splitlines()) == 1


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("data") / "coco", 6)


@pytest.mark.parametrize("command", [(), ("--dry-run",)])
@pytest.mark.parametrize("below", ["", "build", "a/../b"])
def test_a_build_among_the_sources_files_is_refused(source, command, below):
    there = sorted(source.rglob("*"))
    refused("--out .*outside the data of --source coco", "build", *command, "--source", f"coco={source}", "--out",
            source / below)  # fmt: skip
    assert sorted(source.rglob("*")) == there


def test_a_build_may_lie_above_or_beside_its_sources_or_at_an_address(tmp_path):
    root = tmp_path / "demo" / "world" / "coco"
    root.mkdir(parents=True)
    for out in (tmp_path / "demo", root.with_name("coco2"), place("s3://b/x")):
        check_place(out, {"coco": root, "lip": place("s3://b")})
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(UserError, match="--work"):
        check_place(tmp_path / "link" / "w", {"coco": root}, "--work")


REVIEWS = (
    ("status",),
    ("triage",),
    ("export", "--decisions", "words.csv"),
    ("import", "words.csv"),
    ("resegment",),
    ("compose",),
    ("compose", "--write"),
)


@pytest.mark.parametrize("command", REVIEWS)
def test_a_review_command_on_no_build_says_so_and_writes_nothing(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("words.csv").write_text("precious")
    refused("nothere: expected a build folder with build.json", "review", *command, "--root", "nothere")
    assert [p.name for p in tmp_path.iterdir()] == ["words.csv"] and Path("words.csv").read_text() == "precious"
    Path("nothere").mkdir()
    Path("nothere/build.json").write_text("{}")
    refused("nothere: expected a build folder with parse", "review", *command, "--root", "nothere")


@pytest.mark.parametrize("there", [True, False])
def test_a_report_of_no_build_is_refused(tmp_path, there):
    root = tmp_path / "x"
    if there:
        root.mkdir()
    refused("expected a build folder", "build", "report", "--root", root)
    assert not there or not list(root.iterdir())


OPTIONS = (
    (("--parser", "hrnet"), "--parser hrnet: .*--parser-weights or --train; train it with .ahp build parser"),
    (("--segmenter", "deeplab"), "--segmenter deeplab: .*--segmenter-weights or --train; train it"),
    (("--segmenter", "centermask", "--stop-after", "segment"), "--segmenter centermask: .*--name centermask"),
    (("--parser", "hrnet", "--parser-weights", "nope.pt"), "--parser-weights nope.pt: expected a checkpoint"),
    (("--initial", "centermask", "--train", "full"), "--initial centermask: .*expected --initial-weights;"),
    (("--segmenter", "sam", "--segmenter-weights", "/nope"), "--segmenter-weights /nope: expected a checkpoint"),
    (
        ("--segmenter", "mask_rcnn", "--segmenter-weights", "no.pth"),
        "--segmenter-weights no.pth: expected a checkpoint",
    ),
    (
        ("--parser", "hrnet", "--train", "debug"),
        "--parser hrnet --train: .*body parsings, which ahp and lip have; add",
    ),
    (("--decisions", "nope.jsonl"), "--decisions nope.jsonl: expected a file"),
    (("--scenes", "nope.csv"), "--scenes nope.csv: expected a file"),
    (("--places365", "a.pth", "b.txt"), "--places365 a.pth: expected a file"),
    (("--occluder-source", "lip"), r"--occluder-source lip: expected a source of this build \(coco\) or all; add"),
    (("--occluder-source", "all,cocoo"), "--occluder-source cocoo: expected a source of this build"),
    (("--scale", 0, 0), "scale: expected 0 < low <= high, got 0 to 0"),
)


@pytest.mark.parametrize("command", [(), ("--dry-run",)])
@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_what_the_options_tell_is_refused_before_anything_runs(source, tmp_path, command, options, said):
    refused(said, "build", *command, "--source", f"coco={source}", "--out", tmp_path / "o", *options)
    assert not (tmp_path / "o").exists()


def test_a_network_is_asked_for_only_where_it_is_used(source, tmp_path):
    base = ("build", "--dry-run", "--source", f"coco={source}", "--out", tmp_path / "o", "--parser", "hrnet")
    run(*base, "--stop-after", "segment")
    run(*base, "--stop-after", "segment", "--train", "debug")
    run(*base, "--parser-weights", "random")


def test_help_does_not_promise_an_exact_share():
    said = " ".join(run("build", "--help").split())
    assert "at most a fifth" not in said and said.count("whole photos are taken") == 2


def test_a_build_that_kept_nobody_says_the_next_step(source, tmp_path):
    args = ("build", "--source", f"coco={source}", "--out", tmp_path / "o", "-q", "--workers", 1)
    assert f"next: ahp review --root {tmp_path / 'o'}" in run(*args)
    assert "the stage that makes it" not in (tmp_path / "o" / "report" / "index.html").read_text()
    assert "next:" not in run(*args, "--stop-after", "parse")
    assert "next:" not in run(*args, "--review", "provisional", "--stop-after", "review")


@pytest.mark.parametrize(
    ("stop_after", "said"), [(None, "next: give --segmenter"), ("segment", "next: give"), ("harvest", "")]
)
def test_boxes_without_a_segmenter_say_the_next_step(tmp_path, monkeypatch, stop_after, said):
    nobody = Result("segment", tmp_path, {"out": 0, "dropped": 2}, {"objects365/no_mask": 2}, "", True)
    monkeypatch.setattr("ahp_toolkit.build.checks.finished", lambda folder: nobody)
    hint = next_step(Config(run=Running(tmp_path, stop_after=stop_after)))
    assert hint.startswith(said) and bool(hint) == bool(said)


@pytest.mark.parametrize("option", ["--gpus-per-actor=nan", "--gpus-per-actor=1.5", "--gpus-per-actor=inf",
                                    "--gpus-per-actor=-1", "--initial-iou=nan"])  # fmt: skip
def test_a_number_that_is_none_is_refused_at_its_option(source, option, tmp_path):
    args = ["build", "--source", f"coco={source}", "--out", str(tmp_path / "o"), "--engine", "ray", option]
    result = CliRunner().invoke(main.ahp, args)
    assert result.exit_code == 2 and f"Invalid value for '{option.partition('=')[0]}'" in result.output


@pytest.mark.parametrize("gpus", ["0", "0.25", "1", "2", "2.0"])
def test_shares_of_a_gpu_and_whole_ones_are_taken(gpus):
    assert Share().convert(gpus, None, None) == float(gpus)


@pytest.mark.parametrize("gpus", [float("nan"), float("inf"), 1.5, -1.0])
def test_the_engine_takes_no_other_share(gpus):
    with pytest.raises(UserError, match="gpus-per-actor"):
        make_engine(EngineSettings(engine="ray", gpus_per_actor=gpus))


def test_a_reviewer_whom_the_shards_leave_out_is_refused(tmp_path):
    source = data(tmp_path / "coco", 2)
    run("build", "--source", f"coco={source}", "--out", tmp_path / "o", "--workers", 1, "--stop-after", "parse")
    options = ("review", "--root", tmp_path / "o", "--shard", "ann", "--shard", "bob", "--check", "--reviewer")
    refused("carl is none of --shard ann, bob", *options, "carl")


def test_a_missing_file_of_words_is_told_as_that(tmp_path):
    run("build", "--source", f"coco={data(tmp_path / 'coco', 2)}", "--out", tmp_path / "o", "--stop-after", "parse")
    for name in ("masks", "words.csv"):
        done = CliRunner().invoke(main.ahp, ["review", "import", "--root", str(tmp_path / "o"), str(tmp_path / name)])
        assert done.exit_code == 2 and f"{name}' does not exist" in done.output


def test_the_demo_leaves_another_build_alone(tmp_path, source):
    run("build", "--source", f"coco={source}", "--out", tmp_path / "o", "--workers", 1, "--stop-after", "harvest")
    before = (tmp_path / "o" / "build.json").read_bytes()
    refused("holds a build on other data; give another --out", "demo", "--out", tmp_path / "o")
    assert (tmp_path / "o" / "build.json").read_bytes() == before and not (tmp_path / "o" / "world").exists()


@pytest.mark.parametrize("said", ["[]", "{}", '{"roots": []}', '{"roots": {"coco": 1}}', "{"])
def test_a_build_json_that_says_no_roots_is_one_line(tmp_path, said):
    """Roots are never guessed: a demo on such a folder may be one on somebody's build."""
    (tmp_path / "build.json").write_text(said)
    commands = [("demo", "--out"), ("build", "materialize", "--root"), ("build", "report", "--root")]
    commands.append(("build", "segmenter", "--root"))
    for command in commands:
        refused("build.json: ", *command, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["build.json"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_folder_that_cannot_be_made_is_told(source):
    refused(
        "/proc/x: cannot be made there; give another path", "build", "--source", f"coco={source}", "--out", "/proc/x"
    )


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_before_anything_runs(source, tmp_path, device):
    args = ("--source", f"coco={source}", "--out", tmp_path / "o", "--device", device)
    refused(f"device '{device}' cannot be used here", "build", *args)
    assert not (tmp_path / "o").exists()
    run("build", "--dry-run", *args)  # it may be for another machine
