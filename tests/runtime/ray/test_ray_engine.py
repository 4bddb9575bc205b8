"""The Ray engine on a real cluster of three raylets: the local engine's bytes, deaths, bounds and words.

The tests share the cluster and run in order; the one that kills a raylet comes last.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from ahp_toolkit.core.errors import UserError  # noqa: E402
from ahp_toolkit.runtime import ray_engine  # noqa: E402
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine  # noqa: E402
from ahp_toolkit.runtime.engines import LocalEngine, Work  # noqa: E402
from ahp_toolkit.runtime.ray_engine import Check, code_of  # noqa: E402
from ahp_toolkit.runtime.stage import Stage  # noqa: E402
from benchmark.grading import score as judge  # noqa: E402
from tests.benchmark.world import make_split, noisy, submit  # noqa: E402
from tests.runtime.ray.work import Double, calls, complain, divide, job, where  # noqa: E402

MIB = 2**20


@pytest.fixture(scope="module")
def engine(cluster) -> Iterator[ray_engine.RayEngine]:
    with make_engine(EngineSettings(engine="ray", ray_address=cluster.address)) as made:
        yield made


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def test_the_local_engines_bytes_and_no_marks_left(engine, tmp_path):
    (tmp_path / "local").mkdir()
    here = Stage(job(tmp_path / "local"), lambda: range(20)).run(quiet=True)
    there = Stage(job(tmp_path), lambda: range(20)).run(quiet=True, engine=engine)
    assert engine.workers == 3
    assert bytes_of(tmp_path / "square") == bytes_of(tmp_path / "local" / "square")
    assert (here.digest, here.counts, here.dropped) == (there.digest, there.counts, there.dropped)
    assert sorted(p.name for p in there.folder.iterdir()) == sorted(p.name for p in here.folder.iterdir())
    assert str(os.getpid()) not in {pid for _, pid, _ in calls(tmp_path)}


def test_workers_serve_one_stage_after_the_other(engine, tmp_path):
    for name in ("one", "two"):
        Stage(job(tmp_path, name), lambda: range(12)).run(quiet=True, engine=engine)
    one, two = ({pid for _, pid, _ in calls(tmp_path, name)} for name in ("one", "two"))
    assert one & two and len(one | two) <= engine.workers  # a busy machine's last worker may get no shard of one stage


def test_never_more_than_two_tasks_a_worker_are_drawn_and_not_done(engine, tmp_path):
    drawn = done = most = 0

    def tasks():
        nonlocal drawn, most
        for number in range(24):
            drawn += 1
            most = max(most, drawn - done)
            yield number, [number, number]

    work = Work("square", Double(str(tmp_path / "t")))
    for _ in engine.imap(work, tasks()):
        done += 1
    assert done == 24 and 2 <= most <= 2 * engine.workers  # 2 where one worker was ready before the others, and did all


def test_a_worker_that_dies_costs_its_shard_only(engine, tmp_path):
    (tmp_path / "local").mkdir()
    Stage(job(tmp_path / "local"), lambda: range(20)).run(quiet=True)
    Stage(job(tmp_path, kill={6: 2}), lambda: range(20)).run(quiet=True, engine=engine)
    assert bytes_of(tmp_path / "square") == bytes_of(tmp_path / "local" / "square")
    times = [first for first, _, _ in calls(tmp_path)]
    # an answer may be lost on the way when its worker dies over the next shard
    assert times.count("6") == 3 and len(times) <= 10 + 2 + 2


def test_a_shard_that_kills_every_worker_is_named_and_the_rest_stays(engine, tmp_path):
    with pytest.raises(UserError, match=r"square: shard 00001: 4 workers died at it.*goes on from here"):
        Stage(job(tmp_path, kill={2: 99}), lambda: range(8)).run(quiet=True, engine=engine)
    assert ray_engine.ATTEMPTS <= [first for first, _, _ in calls(tmp_path)].count("2") <= ray_engine.ATTEMPTS + 1
    before = len(calls(tmp_path))
    done = len(list(tmp_path.glob(".square-*/shard-*.json")))
    Stage(job(tmp_path), lambda: range(8)).run(quiet=True, engine=engine)
    assert len(calls(tmp_path)) - before == 4 - done


def test_what_a_stage_says_a_user_must_mend_arrives_as_it_was_said(engine, tmp_path):
    with pytest.raises(UserError, match=r"^give a number$"):
        list(engine.imap(Work("square", complain), enumerate(range(3))))
    with pytest.raises(ZeroDivisionError):
        list(engine.imap(Work("square", divide), enumerate(range(3))))


def test_gpus_are_shared_out_and_asked_for_in_vain(cluster, engine):
    engine._dismiss()  # its workers hold all CPUs
    with make_engine(EngineSettings(None, "ray", cluster.address, 0.5)) as shared:
        seen = list(shared.imap(Work("net", where, network=True), enumerate(range(6))))
        assert {gpus for gpus, _ in seen} == {"0"} and 1 <= len({pid for _, pid in seen}) <= 2
        assert {gpus for gpus, _ in shared.imap(Work("plain", where), enumerate(range(3)))} == {""}
    with (
        make_engine(EngineSettings(None, "ray", cluster.address, 2.0)) as greedy,
        pytest.raises(UserError, match="has 1 GPUs"),
    ):
        list(greedy.imap(Work("net", where, network=True), enumerate(range(2))))


def test_scores_are_the_local_engines(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "CHUNK", 7)
    samples = make_split(tmp_path / "split")
    folder = submit(tmp_path / "some", noisy(samples, 2, 0)[3:])
    for name, on in (("here", None), ("there", engine)):
        judge.score(folder, tmp_path / "split", tmp_path / name, engine=on)
    assert len(bytes_of(tmp_path / "here")) == 3 and bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")


def test_a_raylet_killed_in_the_middle_costs_its_shards_only(cluster, engine, tmp_path):
    (tmp_path / "local").mkdir()
    Stage(job(tmp_path / "local"), lambda: range(60)).run(quiet=True)
    victim = cluster.others[0]

    def kill():
        while not any(node == victim.node_id for *_, node in calls(tmp_path)) or len(calls(tmp_path)) < 10:
            if stop.wait(0.05):
                return
        cluster.remove_node(victim, allow_graceful=False)

    stop = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        Stage(job(tmp_path, pause=0.1, doomed=victim.node_id), lambda: range(60)).run(quiet=True, engine=engine)
    finally:
        stop.set()
        killer.join()
    times = [first for first, *_ in calls(tmp_path)]
    lost = [first for first, _, node in calls(tmp_path) if node == victim.node_id]
    assert len(lost) == 1 and len(times) == 31 and set(times) == {str(i) for i in range(0, 60, 2)}
    assert times.count(lost[0]) == 2
    assert len({node for *_, node in calls(tmp_path)}) == 3
    assert bytes_of(tmp_path / "square") == bytes_of(tmp_path / "local" / "square")


def test_a_worker_that_sees_another_disk_or_other_code_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the check takes its worker to the command's folder
    (tmp_path / "photos").mkdir()
    Check("here", code_of(), str(tmp_path), ((str(tmp_path / "photos"), ""),))()
    with pytest.raises(UserError, match=r"does not see .*photos as here does"):
        Check("here", code_of(), str(tmp_path), ((str(tmp_path / "photos"), "000.jpg"),))()
    with pytest.raises(UserError, match="numpy is .* there and 0.1 on here; install the same"):
        Check("here", code_of() | {"numpy": "0.1"}, str(tmp_path), ())()


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    found = ray_engine.require.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "ray" else found(name, *a))
    with pytest.raises(UserError, match=r"--engine ray needs the package ray.*pip install .ahp-toolkit\[ray\]"):
        make_engine(EngineSettings(engine="ray"))


def test_options_of_ray_need_ray():
    for options in ({"ray_address": "auto"}, {"gpus_per_actor": 0.5}):
        with pytest.raises(UserError, match="go with --engine ray"):
            make_engine(EngineSettings(**options))
    assert isinstance(make_engine(EngineSettings(2)), LocalEngine)
