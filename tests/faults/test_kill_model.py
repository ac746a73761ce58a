"""The kill loop's own judgement: it must see what is lost, half applied or back from the dead."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.kill_model import Model, Slot, Version, Violation, text_of


def memory(source: str, number: int, memory_id: int) -> dict[str, Any]:
    return {
        "id": memory_id,
        "text": text_of(number),
        "source": source,
        "metadata": {"n": number},
    }


@pytest.fixture
def model() -> Model:
    """Two acknowledged memories, `a` and `b`."""
    model = Model()
    for number, source in ((1, "a"), (2, "b")):
        model.slots[source] = Slot(source, keyed=False)
        model.acknowledge({source: Version(number, number, number)}, "add")
    return model


@pytest.mark.parametrize(
    "shown",
    [
        [memory("a", 1, 1)],
        [memory("a", 1, 1), memory("b", 3, 2)],
        [memory("a", 1, 1), memory("b", 2, 7)],
        [memory("a", 1, 1), memory("b", 2, 2), memory("b", 2, 3)],
        [memory("a", 1, 1), memory("b", 2, 2), memory("c", 3, 3)],
    ],
    ids=["lost", "another text", "another id", "twice", "never sent"],
)
def test_what_was_not_acknowledged_is_noticed(model: Model, shown: list[dict[str, Any]]) -> None:
    with pytest.raises(Violation):
        model.settle(shown)


def test_an_unanswered_request_may_be_applied_whole_or_not_at_all(model: Model) -> None:
    for shown in ([memory("a", 1, 1), memory("b", 2, 2)], []):
        model.leave_open({"a": None, "b": None}, "delete-batch")
        model.settle(shown)
        model.acknowledge({"a": Version(1, 1, 1), "b": Version(2, 2, 2)}, "again")
    model.leave_open({"a": None, "b": None}, "delete-batch")
    with pytest.raises(Violation, match="half"):
        model.settle([memory("b", 2, 2)])


def test_a_write_after_an_unanswered_restore_does_not_hide_half_of_it(model: Model) -> None:
    snapshot = {"a": frozenset({Version(8, 8, 1)}), "b": frozenset({Version(9, 9, 2)})}
    model.slots["c"] = Slot("c", keyed=False)
    model.acknowledge({"c": Version(3, 3, 3)}, "add")
    model.restore(snapshot, answered=False)
    model.acknowledge({"c": Version(4, 4, 3)}, "update")
    rest = memory("c", 4, 3)
    with pytest.raises(Violation, match="half"):
        model.settle([memory("a", 8, 1), memory("b", 2, 2), rest])
    model.settle([memory("a", 8, 1), memory("b", 9, 2), rest])


def test_an_id_that_is_given_away_twice_is_noticed(model: Model) -> None:
    model.slots["c"] = Slot("c", keyed=False)
    with pytest.raises(Violation, match="id 1"):
        model.acknowledge({"c": Version(3, 3, 1)}, "add")
