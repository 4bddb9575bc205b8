"""The compose panel's server side: proposals with pictures, a look that logs nothing, votes that count."""

from __future__ import annotations

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions import votes
from annotation.app import compositions
from tests.annotation.test_compose import propose, root  # noqa: F401  a fixture


@pytest.fixture
def proposed(root):  # noqa: F811
    propose(root)
    return root


def test_edit_then_vote_then_nothing_is_left(proposed):
    first = compositions.queue(proposed, "ann", "edit", n=1)
    assert first["left"] == len(votes.views(proposed))
    item = first["items"][0]
    assert item["photo"].startswith("data:image/jpeg;base64,")
    answer = compositions.act(proposed, "ann", {"proposal_id": item["id"], "action": "pick"})
    assert answer["status"] == "picked"
    assert compositions.queue(proposed, "ann", "edit")["left"] == first["left"] - 1
    assert compositions.queue(proposed, "ann", "vote")["left"] == 0  # nobody votes on their own work
    for voter in ("bob", "cleo"):
        seen = compositions.queue(proposed, voter, "vote")["items"][0]
        vote = {"proposal_id": seen["id"], "action": "pass", "version": seen["version"]}
        compositions.act(proposed, voter, vote)
        assert compositions.queue(proposed, voter, "vote")["left"] == 0
    assert compositions.queue(proposed, "ann", "edit")["passed"] == 1


def test_a_look_moves_the_picture_and_logs_nothing(proposed):
    item = compositions.queue(proposed, "ann", "edit")["items"][0]
    moved = compositions.look(proposed, item["id"], 3, 0, 1.0)
    assert moved["photo"] != item["photo"]
    assert moved["version"] != item["version"]
    assert not votes.log_of(proposed).exists()


def test_wrong_modes_and_ids_are_refused(proposed):
    with pytest.raises(UserError, match="edit or vote"):
        compositions.queue(proposed, "ann", "dance")
    with pytest.raises(UserError, match="no such proposal"):
        compositions.look(proposed, "nothing", 0, 0, 1)
