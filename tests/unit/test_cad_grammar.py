"""The grammar of the command text: neither wider nor narrower than what is read."""

from __future__ import annotations

import random
import re

import pytest
from cad_examples import SEQUENCES
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad import text
from zerofit.cad.automaton import Builder
from zerofit.cad.errors import CadError
from zerofit.cad.grammar import State, allowed, start
from zerofit.cad.sequence import Sequence


@given(SEQUENCES)
def test_every_prefix_of_a_text_is_viable_and_the_whole_alone_is_finished(sequence: Sequence) -> None:
    written = text.write(sequence)
    state = start()
    for character in written:
        assert not state.finished
        assert character in state.viable
        following = state.advance(character)
        assert following is not None
        state = following
    assert state.finished
    assert not state.viable
    assert state == allowed(written)


@given(st.integers(0, 2**32 - 1))
def test_what_a_walk_over_viable_characters_makes_is_read(seed: int) -> None:
    draws, made, state = random.Random(seed), "", start()
    while not state.finished:
        made += draws.choice(sorted(state.viable))
        state = advanced(state, made[-1])
    sequence = text.read(made)
    assert text.read(text.write(sequence)) == sequence


def advanced(state: State, characters: str) -> State:
    following = state.advance(characters)
    assert following is not None
    return following


@given(st.data())
def test_a_character_that_is_not_viable_is_refused_by_the_reader_too(data: st.DataObject) -> None:
    written = text.write(data.draw(SEQUENCES))
    at = data.draw(st.integers(0, len(written)))
    state = allowed(written[:at])
    assert state is not None
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character not in state.viable))
    assert state.advance(other) is None
    with pytest.raises(CadError, match=re.escape(repr(other))):
        text.read(written[:at] + other + written[at:])


def test_states_are_few_and_every_one_leads_to_a_finished_text() -> None:
    ways = {start(): {advanced(start(), character) for character in start().viable}}
    while unseen := {state for targets in ways.values() for state in targets} - ways.keys():
        ways |= {state: {advanced(state, character) for character in state.viable} for state in unseen}
    assert len(ways) < 400
    good = {state for state in ways if state.finished}
    while more := {state for state, targets in ways.items() if targets & good} - good:
        good |= more
    assert good == ways.keys()


def test_numbers_are_0_to_255_and_nothing_else() -> None:
    def viable(number: str) -> bool:
        return allowed(f"loop\nline {number} ") is not None

    assert all(viable(str(number)) for number in range(256))
    assert not any(viable(str(number)) for number in range(256, 3000))
    assert not any(map(viable, ("", "00", "01", "007", "-1", "+1", "1.0", "1e1", " 1")))


def test_an_automaton_of_parts() -> None:
    """(ab | c)+ d?"""
    builder = Builder()
    some = builder.repeated(builder.either(builder.text("ab"), builder.one_of("c")))
    table = builder.table(builder.chain(some, builder.maybe(builder.one_of("d"))))

    def matches(whole: str) -> bool:
        state = 0
        for character in whole:
            if character not in table.ways[state]:
                return False
            state = table.ways[state][character]
        return state in table.final

    assert all(map(matches, ("c", "ab", "abc", "cabd", "ccd")))
    assert not any(map(matches, ("", "a", "d", "abdd", "ba", "cda")))
