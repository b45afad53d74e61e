"""Messages for a person: short whatever is in them, with the place at their beginning and the remedy at their end."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import LONGEST, UserError, brief, reason


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 1000))
def test_a_message_of_any_values_is_one_short_line(value: str, times: int):
    message = str(UserError(f"own.jsonl, row 3: {value * times} cannot be read; replace it or remove the row."))
    assert message.startswith("own.jsonl, row 3: ")
    assert message.endswith(" cannot be read; replace it or remove the row.")
    assert len(message.splitlines()) == 1
    assert message.encode()


def test_a_short_message_stays_what_it_is_and_crosses_processes():
    error = UserError("seed: write 10.")
    assert str(pickle.loads(pickle.dumps(error))) == "seed: write 10."
    assert len(str(UserError("x" * 10_000))) <= LONGEST


def test_names_keep_their_beginning_and_end():
    assert brief("a" * 50 + "/" + "b" * 50, 20) == "a" * 7 + " … " + "b" * 10
    assert brief("caf\udce9.png") == "caf\\udce9.png"


def test_a_reason_is_the_first_line_of_what_an_exception_says():
    assert reason(ValueError("Cannot parse.\nDetails\nMore")) == "Cannot parse"
    assert reason(KeyError()) == "KeyError"
