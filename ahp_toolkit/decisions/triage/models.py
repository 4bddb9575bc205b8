"""The triage's classifiers: calibrated, chosen by how much has been decided, cross-fitted by photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.hashing import unit_hash
from ahp_toolkit.decisions.triage.features import NAMES

FOLDS = 5
#: Decided humans of the rarer kind below which: the rule alone, a logistic regression, sigmoid calibration.
FEWEST, FEW, MANY = 8, 60, 1000
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def fold_of(photo: str, seed: int = 0) -> int:
    """The fold of a photo, by hash: all its humans fall into one, decided or not."""
    return int(unit_hash("fold", seed, photo) * FOLDS)


def cross_fitted(x: Floats, y: Bools, train: Bools, photos: Sequence[str], seed: int = 0) -> tuple[str, Floats | None]:
    """(method, p(y) of everybody [n]): each by the model of its photo's fold, which saw no decision on that photo.

    ('rule', None) where a fold's model would have too few decisions to learn from.

    Args:
        x: features [n, f]; NaN is unknown.
        y: what to predict, bool [n]; only used where ``train``.
        train: whose answer may be learned from, bool [n].
        photos: the group of each.
        seed: of folds and models.
    """
    x = x[:, np.isfinite(x).any(axis=0)]
    folds = np.array([fold_of(p, seed) for p in photos], np.int64)
    groups = np.unique(np.asarray(photos), return_inverse=True)[1] if len(photos) else np.zeros(0, np.int64)
    scores, methods = np.zeros(len(y)), set[str]()
    for k in range(FOLDS):
        use, scored = train & (folds != k), folds == k
        fewest = int(min(y[use].sum(), (~y[use]).sum()))
        if fewest < FEWEST:
            return "rule", None
        if scored.any():
            method, model = _fit(x[use], y[use], groups[use], fewest, seed)
            methods.add(method)
            scores[scored] = model.predict_proba(x[scored])[:, 1]
    return "+".join(sorted(methods)) or "rule", scores if methods else None


def _fit(x: Floats, y: Bools, groups: NDArray[np.int64], fewest: int, seed: int) -> tuple[str, Any]:
    if fewest < FEW:
        return "logistic", _logistic().fit(x, y)
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline

    boosted = HistGradientBoostingClassifier(
        learning_rate=0.08, max_iter=100, max_leaf_nodes=15, min_samples_leaf=10, l2_regularization=1.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    model = make_pipeline(VarianceThreshold(), boosted)  # the trees cannot bin a column without two values
    inner = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    splits = [(a, b) for a, b in inner.split(x, y, groups) if len(set(y[a])) == len(set(y[b])) == 2]
    if len(splits) < 2:  # the rarer kind stands in very few photos
        return "logistic", _logistic().fit(x, y)
    method = "isotonic" if fewest >= MANY else "sigmoid"
    return f"boosted, {method}", CalibratedClassifierCV(model, method=method, cv=splits).fit(x, y)


def _logistic() -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fill = SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True, keep_empty_features=True)
    return make_pipeline(fill, StandardScaler(), LogisticRegression(C=0.3, max_iter=500))


def rule_scores(x: Floats) -> Floats:
    """The cold start [n]: the rule's verdict first, then how much touches the human and how good its mask looks.

    In (0, 1), an order rather than a probability; the certainty of the classifier learned from people where there is
    one. ``x`` has the columns of `NAMES`.
    """
    column = {name: np.nan_to_num(x[:, i], nan=0.0) for i, name in enumerate(NAMES)}
    touched = np.maximum(column["mask_contact"], 0.5 * column["box_cover"]).clip(0, 1)
    depth = np.isfinite(x[:, NAMES.index("contact_nearer")])  # touching what stands behind is no reason to discard
    touched = np.where(depth, column["contact_nearer"], touched)
    bad = 0.5 * touched + 0.2 * column["stray"].clip(0, 1) + 0.2 * (column["border_touch"] > 0)
    looks = 0.3 * (1 - bad) * (0.5 + 0.5 * column["score"].clip(0, 1))
    plain = 0.02 + np.where(depth, 0.2, 0.6) * column["rule"] + looks
    return np.where(np.isfinite(x[:, NAMES.index("certainty")]), column["certainty"], plain)


def quality(scores: Floats, y: Bools) -> dict[str, Any]:
    """How good scores are where people have decided: AUC, Brier score, and predicted against observed by tenths.

    Every score is from a model that never saw its photo.
    """
    if len(set(y)) < 2:
        return {"auc": None, "brier": None, "calibration": []}
    from sklearn.metrics import brier_score_loss, roc_auc_score

    tenth = (scores * 10).astype(int).clip(0, 9)
    bins = [
        {"low": b / 10, "n": int(m.sum()), "predicted": float(scores[m].mean()), "observed": float(y[m].mean())}
        for b in range(10)
        if (m := tenth == b).any()
    ]
    return {
        "auc": float(roc_auc_score(y, scores)),
        "brier": float(brier_score_loss(y, scores)),
        "calibration": bins,
    }
