"""Which stores a host obeys: its own, as far as it heard or further; never another, never an older copy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pileus.services.fleet.rules.lineage import Incarnation, refusal

runs = st.lists(st.integers(0, 50), min_size=1, max_size=6).map(
    lambda steps: [Incarnation(f"run-{place}", sum(steps[:place])) for place in range(len(steps))]
)


@given(history=runs, growth=st.integers(0, 100), data=st.data())
def test_a_store_that_only_grew_is_obeyed(history: list[Incarnation], growth: int, data: st.DataObject) -> None:
    head = history[-1].start + growth
    place = data.draw(st.integers(0, len(history) - 1))
    end = history[place + 1].start if place + 1 < len(history) else head
    position = data.draw(st.integers(0, end))
    assert refusal("s", history, head, known="s", heard=history[place].id, position=position) is None


@given(history=runs, heard_beyond=st.integers(1, 50), growth=st.integers(0, 500))
def test_an_older_copy_is_refused_however_far_it_grows(
    history: list[Incarnation], heard_beyond: int, growth: int
) -> None:
    copied_at = history[-1].start + 10
    restored = [*history, Incarnation("after the restore", copied_at)]
    heard = history[-1].id
    answer = refusal("s", restored, copied_at + growth, known="s", heard=heard, position=copied_at + heard_beyond)
    assert "older copy" in (answer or "")


def test_a_run_that_the_copy_never_had_is_refused() -> None:
    answer = refusal("s", [Incarnation("a", 0)], 100, known="s", heard="b", position=0)
    assert "older copy" in (answer or "")


def test_another_store_is_refused_and_a_new_host_obeys() -> None:
    history = [Incarnation("a", 0)]
    answer = refusal("s", history, 5, known="t", heard="a", position=0)
    assert "obeys the store t" in (answer or "")
    assert refusal("s", history, 5, known=None, heard=None, position=0) is None
