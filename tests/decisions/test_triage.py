"""Triage: the stated risk holds, no photo leaks, the audit is random and always asked about, nothing is preserved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode, encode_labels
from ahp_toolkit.core.records import Decision, Flags, Neighbours
from ahp_toolkit.decisions import features as shape
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.triage import features, models, triage
from ahp_toolkit.decisions.triage.triage import Settings, Triage
from ahp_toolkit.storage import parquet
from annotation.session.queue import Plan, Queue
from tests.annotation.people import population
from tests.annotation.small import occluder, person, rectangle, say, write

FEATURE = {name: i for i, name in enumerate(features.NAMES)}


@pytest.fixture
def light(monkeypatch):
    """The boosted trees give way to the logistic regression: the same machinery, faster."""
    monkeypatch.setattr(models, "FEW", 10**9)


def test_known_upper_bounds():
    assert triage.upper_bound(0, 299, 0.95) == pytest.approx(0.00997, abs=1e-5)
    assert triage.upper_bound(2, 10, 0.95) == pytest.approx(0.50690, abs=1e-5)  # Clopper and Pearson's table
    assert triage.upper_bound(0, 0, 0.95) == triage.upper_bound(5, 5, 0.95) == 1.0
    assert triage.needed(0.01, 0.95) == 299
    assert triage.needed(0.05, 0.9) == 45


@given(st.integers(0, 900), st.sampled_from([0.005, 0.01, 0.05]), st.sampled_from([0.9, 0.95]))
def test_the_threshold_is_the_highest_that_keeps_the_bound(n, risk, confidence):
    scores = np.random.default_rng(n).random(n)
    t, lost, upper = triage.threshold_of(scores, risk, confidence)
    assert int((scores < t).sum()) == lost
    if n < triage.needed(risk, confidence):
        assert (t, lost) == (0.0, 0) and upper > risk
    else:
        assert upper <= risk < triage.upper_bound(lost + 1, n, confidence)


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [triage.threshold_of(rng.random(500), 0.01, 0.95)[0] for _ in range(1000)]
    assert np.mean(np.array(found) > 0.01) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)  # scores are uniform: F(t) = t


def test_the_risk_holds_on_twenty_populations(light):
    s, lost, saved = Settings(risk=0.02, audit=0.3), [], []
    for seed in range(20):
        rows, truth = population(3000, seed, preserved=0.3, blur=1.5)
        asked = {r.candidate_id for r in rows if s.audited(r.candidate_id) is not None}
        asked |= {r.candidate_id for r in rows if hashing.unit_hash("asked", seed, r.candidate_id) < 0.2}
        made = triage.triage(rows, {c: truth[c] for c in asked}, replace(s, seed=0))
        gone = [t.candidate_id for t in made.records if t.auto_discard]
        preserves = sum(v == "preserve" for v in truth.values())
        lost.append(sum(truth[c] == "preserve" for c in gone) / preserves)
        saved.append(len(gone) / len(rows))
        assert made.audit.upper <= s.risk
        assert not asked & set(gone)
    assert max(lost) <= s.risk
    assert np.mean(saved) > 0.05


def test_boosted_trees_sort_better_than_the_rule_and_save_work():
    rows, truth = population(4000, 3, preserved=0.3)
    s = Settings(risk=0.05, audit=0.1)
    said = {r.candidate_id: truth[r.candidate_id] for r in rows[::3]}
    said |= {c: v for c, v in truth.items() if s.audited(c) is not None}
    made = triage.triage(rows, said, s)
    assert made.report["method"] == "boosted, sigmoid"
    y = np.array([truth[r.candidate_id] == "preserve" for r in rows])
    rule = models.quality(models.rule_scores(features.matrix(rows)), y)["auc"]
    assert made.report["auc"] > max(rule, 0.9)
    assert made.report["brier"] < 0.15
    assert made.report["auto_discard"] > 0.2 * len(rows)
    for b in made.report["calibration"]:
        assert b["n"] < 100 or abs(b["predicted"] - b["observed"]) < 0.15


def test_no_photo_leaks_into_its_own_scores(light):
    """The answer depends on the photo alone and is random: a model that saw photo-mates would know it."""
    rng = np.random.default_rng(0)
    rows, truth = [], {}
    for p in range(300):
        kept, mark = bool(rng.integers(2)), rng.normal(size=len(features.NAMES))
        for k in range(4):
            rows.append(features.Row(f"x/{p}#{k}", f"x/{p}", "x", tuple(mark + 0.01 * rng.normal(size=mark.size))))
            truth[f"x/{p}#{k}"] = "preserve" if kept else "discard"
    assert triage.triage(rows, truth, Settings()).report["auc"] < 0.6
    folds = {r.photo: {models.fold_of(q.photo) for q in rows if q.photo == r.photo} for r in rows[:40]}
    assert all(len(f) == 1 for f in folds.values())


def test_a_decision_changes_no_score_of_its_own_photo_and_audits_train_nothing(light):
    rows, truth = population(900, 5, preserved=0.3)
    s = Settings()
    before = {t.candidate_id: t.score for t in triage.triage(rows, truth, s).records}
    audited = next(r for r in rows if s.audited(r.candidate_id) is not None)
    other = next(r for r in rows if s.audited(r.candidate_id) is None)
    for row, moves in ((audited, False), (other, True)):
        turned = truth | {row.candidate_id: "discard" if truth[row.candidate_id] == "preserve" else "preserve"}
        after = {t.candidate_id: t.score for t in triage.triage(rows, turned, s).records}
        assert all(after[r.candidate_id] == before[r.candidate_id] for r in rows if r.photo == row.photo)
        assert (after != before) == moves


def test_cold_start_is_the_rule_and_nothing_is_discarded_without_proof():
    rows, truth = population(400, 1)
    made = triage.triage(rows, {}, Settings())
    assert made.report["method"] == "rule" and not any(t.auto_discard for t in made.records)
    ranked = [t.candidate_id for t in sorted(made.records, key=lambda t: t.rank)]
    assert sorted(ranked) == sorted(truth) and sorted(t.rank for t in made.records) == list(range(400))
    first, last = (np.mean([truth[c] == "preserve" for c in part]) for part in (ranked[:100], ranked[-100:]))
    assert first > last
    assert [m.audit for m in sorted(made.records, key=lambda t: t.rank)][::4][:5] == [True] * 5
    assert made.audit.needed == 299 and made.audit.threshold == 0.0


def test_triaged_again_every_4th_candidate_asked_about_is_still_of_the_audit(light):
    rows, truth = population(1000, 1)
    s = Settings(audit=0.3)
    first = [t.candidate_id for t in sorted(triage.triage(rows, {}, s).records, key=lambda t: t.rank)]
    said = {c: truth[c] for c in first[:200]}
    again = sorted(triage.triage(rows, said, s).records, key=lambda t: t.rank)
    assert sorted(t.rank for t in again) == list(range(1000))
    asked = [t for t in again if t.candidate_id not in said]
    assert [t.audit for t in asked[:200]] == [k % triage.AUDIT_EVERY == 0 for k in range(200)]
    by_score = [t for t in again if t.candidate_id in said or not t.audit]  # second opinions keep their place
    assert by_score == sorted(by_score, key=lambda t: (-t.score, t.candidate_id))


def test_triaged_again_second_opinions_are_still_asked_for_first(light, tmp_path):
    rows, truth = population(400, 1)
    plan = Plan(overlap=0.2)
    first = sorted(triage.triage(rows, {}, Settings()).records, key=lambda t: -t.score)
    said = {t.candidate_id: truth[t.candidate_id] for t in first[:100]}
    owed = {c for c in said if plan.copies_of(c) > 1}
    again = sorted(triage.triage(rows, said, Settings()).records, key=lambda t: t.rank)
    order = [t.candidate_id for t in again if not t.auto_discard]
    got = Queue(tmp_path, order, plan).next_for("bob", 400, {c: {"ann"} for c in said})
    score, audited = {t.candidate_id: t.score for t in again}, {t.candidate_id for t in again if t.audit}
    plain = [c for c in got if c in owed or c not in audited]
    assert owed and owed <= set(plain) and not (set(said) - owed) & set(got)
    assert plain == sorted(plain, key=lambda c: (-score[c], c))


def test_the_audit_counts_only_up_to_its_first_undecided_candidate():
    rows, truth = population(3000, 2, preserved=0.9)
    s = Settings(audit=0.2, risk=0.05)
    order = sorted((r.candidate_id for r in rows if s.audited(r.candidate_id) is not None), key=s.audited)
    ids, scores = [r.candidate_id for r in rows], np.linspace(0.1, 1, len(rows))
    whole = triage.audit_of(ids, scores, truth, s)
    assert (whole.size, whole.decided, whole.waiting) == (len(order), len(order), 0)
    gap = triage.audit_of(ids, scores, {c: v for c, v in truth.items() if c != order[7]}, s)
    assert (gap.decided, gap.waiting, gap.threshold) == (7, len(order) - 8, 0.0)


def test_features_of_a_human_and_what_is_not_known():
    plain = features.row_of(person(1)).values
    assert math.isnan(plain[FEATURE["flag_occluded"]]) and math.isnan(plain[FEATURE["head"]])
    assert math.isnan(plain[FEATURE["second_iou"]])
    assert plain[FEATURE["fill"]] == 1.0 and plain[FEATURE["rule"]] == 1.0
    labels = np.zeros((80, 96), np.uint8)
    labels[20:30, 10:20] = 13
    rich = person(
        1, flags=Flags(occluded=True, crowd=False), parsing=encode_labels(labels), parser="hrnet@1", border_touch=3,
        neighbours=Neighbours(2, 0.5, 0.25, None, True),
    )  # fmt: skip
    row = features.row_of(rich, encode(rectangle(8, 12, 22, 35)))
    get = lambda name: row.values[FEATURE[name]]  # noqa: E731
    assert (get("flag_occluded"), get("flag_crowd"), get("head"), get("feet"), get("parts")) == (1, 0, 1, 0, 1)
    assert (get("neighbours"), get("box_cover"), get("near_crowd"), get("rule")) == (2, 0.5, 1, 0)
    assert math.isnan(get("mask_contact")) and 0 < get("second_iou") < 1 and get("border_touch") > 0
    assert math.isnan(features.row_of(rich, encode(np.ones((5, 5), bool))).values[FEATURE["second_iou"]])


def test_what_stands_lower_stands_nearer():
    one = person(1)  # x 8 to 22, y 12 to 57
    near, far = (occluder(one.candidate.image, b, n) for b, n in (((22, 30, 34, 70), "n"), ((22, 20, 34, 40), "f")))
    own = occluder(one.candidate.image, (8, 12, 22, 57), one.candidate.candidate_id)
    get = lambda row, name: row.values[FEATURE[name]]  # noqa: E731
    before, behind = (features.row_of(one, None, [own, o]) for o in (near, far))
    assert get(before, "contact_nearer") > 0 == get(before, "contact_farther")
    assert get(behind, "contact_farther") > 0 == get(behind, "contact_nearer")
    assert get(before, "base_nearer") == pytest.approx(13 / 45) and get(behind, "base_nearer") < 0
    alone = features.row_of(one, None, [own])
    assert math.isnan(get(alone, "base_nearer")) and get(alone, "contact_nearer") == 0
    assert math.isnan(get(features.row_of(one), "contact_nearer")) and get(alone, "solidity") == 1.0
    bitten = one.mask.decode()
    bitten[30:50, 14:] = False
    assert shape.solidity(encode(bitten)) < 0.9


def test_embeddings_become_components_and_bad_tables_are_refused(tmp_path):
    import pyarrow as pa

    rng = np.random.default_rng(0)
    vectors = {f"c{i}": list(rng.normal(size=40)) for i in range(30)}
    out = features.embedded([*vectors, "none"], vectors)
    assert out.shape == (31, 16) and np.isnan(out[-1]).all() and np.isfinite(out[:-1]).all()
    assert features.embedded(["a"], {}).shape == (1, 0)
    path = tmp_path / "e.parquet"
    parquet.write_table(path, pa.table({"candidate_id": list(vectors), "embedding": list(vectors.values())}))
    assert features.read_embeddings(path) == vectors
    parquet.write_table(path, pa.table({"candidate_id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(UserError, match="one length"):
        features.read_embeddings(path)


def test_a_build_folder_is_triaged_and_the_same_decisions_give_the_same_bytes(tmp_path):
    people = [person(i, k) for i in range(30) for k in range(3)]
    write(tmp_path, people)
    assert triage.ordered(tmp_path) == [p.candidate.candidate_id for p in people]
    for i, p in enumerate(people[:60]):
        say(tmp_path, "ann", p.candidate.candidate_id, "preserve" if i % 3 else "discard", at="2026-01-01T00:00:00Z")
    log.append(tmp_path / "decisions/rule.jsonl",
               Decision(people[70].candidate.candidate_id, "preserve", "rule", "0" * 16, provisional=True))  # fmt: skip
    made = triage.run_triage(tmp_path)
    assert made.report["decided"] == 60 and made.report["candidates"] == 90
    assert list(parquet.read_records(tmp_path / "triage", Triage)) == list(made.records)
    assert triage.report_of(tmp_path)["audit"]["needed"] == 299
    assert sorted(triage.ordered(tmp_path)) == sorted(p.candidate.candidate_id for p in people)
    first = (tmp_path / "triage/part-00000.parquet").read_bytes()
    triage.run_triage(tmp_path)
    assert (tmp_path / "triage/part-00000.parquet").read_bytes() == first


@pytest.mark.parametrize("args", [{"risk": 0}, {"audit": 1.0}, {"confidence": 1.5}])
def test_wrong_settings_are_refused(args):
    with pytest.raises(UserError, match="above 0 and below 1"):
        Settings(**args)
