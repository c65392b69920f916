"""Tokenizers of language recipes: the one of bytes, templates by name and by file, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_examples import recipe
from transformers import AutoTokenizer

from zerofit.cad.parts import part
from zerofit.cad.text import write
from zerofit.config.errors import UserError
from zerofit.data.arithmetic import problem
from zerofit.data.byte_tokenizer import byte_tokenizer, part_tokenizer, problem_tokenizer
from zerofit.data.templates import names, shipped
from zerofit.data.tokenizer import load_tokenizer, vocabulary

BYTES, PROBLEMS, PARTS = byte_tokenizer(), problem_tokenizer(), part_tokenizer()


@given(st.text().filter(lambda text: "<|" not in text))  # of which turns and padding are made
def test_a_byte_is_a_token_and_comes_back(text: str) -> None:
    tokens = BYTES(text, add_special_tokens=False)["input_ids"]
    assert bytes(tokens) == text.encode()
    assert BYTES.decode(tokens) == text


def test_turns_and_padding_have_tokens_of_their_own() -> None:
    assert BYTES("<|im_start|>a<|im_end|><|endoftext|>")["input_ids"] == [256, ord("a"), 257, 258]
    assert (BYTES.eos_token_id, BYTES.pad_token_id, vocabulary(BYTES)) == (257, 258, 259)


def test_a_saved_tokenizer_of_bytes_is_read_back_as_it_was(tmp_path: Path) -> None:
    """What an export holds: transformers alone makes the same of it."""
    BYTES.save_pretrained(tmp_path)
    turns = [{"role": "user", "content": "é"}, {"role": "assistant", "content": "ß"}]
    asked: dict[str, Any] = {"return_dict": True, "return_assistant_tokens_mask": True}
    expected = dict(BYTES.apply_chat_template(turns, **asked))
    for again in (
        AutoTokenizer.from_pretrained(tmp_path),
        load_tokenizer(recipe(model={"tokenizer": str(tmp_path)}, path="x")),
    ):
        assert dict(again.apply_chat_template(turns, **asked)) == expected
        assert (again.eos_token_id, again.pad_token_id, len(again)) == (257, 258, 259)
    assert [t for t, on in zip(expected["input_ids"], expected["assistant_masks"], strict=True) if on] == [
        195,
        159,
        257,
    ]


def test_templates_go_by_name_or_by_file(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    for given_as, text in (("r1", shipped("r1")), (str(own), own.read_text())):
        found = load_tokenizer(recipe(model={"chat_template": given_as}, path="x"))
        assert found.chat_template == text
    assert names() == ["chatml", "r1"]
    with pytest.raises(UserError, match=r"chatm1 is neither a Jinja file nor a shipped .*did you mean chatml\?"):
        load_tokenizer(recipe(model={"chat_template": "chatm1"}, path="x"))


@pytest.mark.parametrize("role", ["pad", "eos"])
def test_a_tokenizer_without_padding_or_end_is_refused(tmp_path: Path, role: str) -> None:
    BYTES.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config[f"{role}_token"]
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"has no {role} token; name one in its tokenizer_config.json"):
        load_tokenizer(recipe(model={"tokenizer": str(tmp_path)}, path="x"))


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.tokenizer: .* holds no tokenizer"):
        load_tokenizer(recipe(model={"tokenizer": str(tmp_path)}, path="x"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read") as refused:
        load_tokenizer(recipe(model={"tokenizer": str(tmp_path)}, path="x"))
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(recipe(model={"tokenizer": str(tmp_path / "gone")}, path="x"))


def test_a_hub_tokenizer_that_is_here_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    BYTES.save_pretrained(tmp_path)
    asked: list[bool] = []

    def hub(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert len(load_tokenizer(recipe(model={"tokenizer": "some/model"}, path="x"))) == 259
    assert asked == [True]


@given(st.text())
def test_merges_lose_no_text(text: str) -> None:
    for merged in (PROBLEMS, PARTS):
        assert merged.decode(merged(text, add_special_tokens=False).input_ids) == text


def test_merges_are_of_the_word_problems_and_keep_numbers_apart() -> None:
    """Less than half of the tokens of bytes; a small number is one token wherever it stands."""
    for index in range(4000, 4050):
        one = problem(0, index)
        text = one.question + one.completion
        assert 2 * len(PROBLEMS(text).input_ids) < len(BYTES(text).input_ids)
    for number in range(2, 41):
        for text in (f"{number} + 1", f"has {number} eggs", f"= {number}\n", f"{{{number}}}"):
            assert str(number) in [PROBLEMS.decode([token]) for token in PROBLEMS(text).input_ids]
    assert vocabulary(PROBLEMS) == 643


def test_merges_of_parts_make_a_token_of_each_number_and_word() -> None:
    """A third of the tokens of bytes; a caption's 64 is the token of the commands' 64; commands begin alike."""
    for index in range(4000, 4100):
        caption, commands = part(0, index).caption, write(part(0, index).sequence)
        found, written = PARTS(caption).input_ids, PARTS(commands).input_ids
        assert 3 * len(found + written) < len(caption + commands)
        for text, ids in ((caption, found), (commands, written)):
            tokens = [PARTS.decode([token]) for token in ids]
            assert [token for token in tokens if re.search(r"\d", token)] == re.findall(r" \d+", text)
        prompt = "Make:\n"
        assert PARTS(prompt + commands).input_ids == PARTS(prompt).input_ids + written
    assert vocabulary(PARTS) <= 643
