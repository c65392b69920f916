"""Samples of text: what is in them and what is left out, that they are made once, and what is refused in one line."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from text_examples import ANSWER, QUESTION, THOUGHT, recipe, thinking, write

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data import arithmetic
from zerofit.data.byte_tokenizer import byte_tokenizer
from zerofit.data.sample_cache import kept
from zerofit.data.samples import Samples, open_prompts, open_samples
from zerofit.data.text import describe, restore
from zerofit.data.text_rows import rows
from zerofit.plan.spec import TextFacts
from zerofit.prepare.options import Options
from zerofit.prepare.pipeline import prepare
from zerofit.prepare.sources import Source

BYTES = byte_tokenizer()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samples"


def texts(samples: Samples) -> list[tuple[str, str]]:
    """The whole of each, and what is learnt of it."""
    return [(BYTES.decode(one.tokens), BYTES.decode(one.tokens[one.learnt])) for one in samples]


def refused(asked: Recipe) -> str:
    with pytest.raises(UserError) as error:
        describe(asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_problems_become_dialogues_and_questions() -> None:
    facts = describe(recipe(source="arithmetic", problems=30, test_problems=7, seed=3))
    train, test = arithmetic.split(3, 30, 7)
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (30, 7, 7, "test")
    assert (facts.rows, facts.left_out, facts.vocabulary, facts.pad, facts.stops) == (30, 0, 259, 258, (257,))
    found = texts(open_samples(facts, "train"))
    assert [learnt for _, learnt in found] == [one.completion + "<|im_end|>" for one in train]
    assert all(one.question in whole for one, (whole, _) in zip(train, found, strict=True))
    assert facts.tokens == sum(len(one.tokens) for one in open_samples(facts, "train"))
    assert facts.targets == sum(int(one.learnt.sum()) for one in open_samples(facts, "train"))
    assert len(texts(open_samples(facts, "validation"))) == 7

    facts = describe(recipe("grpo", source="arithmetic", problems=30, test_problems=7, seed=3))
    (prompt, *_) = open_prompts(facts, "test")
    assert BYTES.decode(prompt.tokens) == f"<|im_start|>user\n{test[0].question}<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.row["messages"] == [{"role": "user", "content": test[0].question}]
    assert (prompt.row["answer"], prompt.where) == (str(test[0].answer), "arithmetic test:1")


def test_rows_of_any_form_are_read_and_what_was_prepared_gives_the_same(tmp_path: Path) -> None:
    rows = [
        thinking(),
        {"question": "1+1?", "answer": "It is two.\n#### 2"},
        {"prompt": "Say hi.", "completion": "Hi."},
        {"problem": "3+3?", "solution": "So \\boxed{6}.", "level": 5},
    ]
    file = write(tmp_path / "rows.jsonl", *rows)
    prepare(Options((file,), tmp_path / "prepared"))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(Path(file).read_bytes()))
    asked: dict[str, Any] = {"system": "Be brief.", "validation_path": file}
    as_given = describe(recipe(path=file, **asked))
    assert as_given.validation_from == "split"
    found = texts(open_samples(as_given, "train"))
    assert found[0] == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n{THOUGHT}\n</think>\n{ANSWER}<|im_end|>\n",
        f"<think>\n{THOUGHT}\n</think>\n{ANSWER}<|im_end|>",
    )
    assert [learnt.partition("\n")[0] for _, learnt in found[1:]] == [
        "It is two.",
        "Hi.<|im_end|>",
        "So \\boxed{6}.<|im_end|>",
    ]
    for path in (str(tmp_path / "prepared"), str(tmp_path / "rows.jsonl.gz")):
        assert texts(open_samples(describe(recipe(path=path, **asked)), "train")) == found

    for path, where in ((file, "rows.jsonl:4"), (str(tmp_path / "prepared"), "part-00000.parquet:4")):
        prompts = open_prompts(describe(recipe("grpo", path=path, **asked)), "train")
        assert [one.row["answer"] for one in prompts] == ["4", "2", None, "6"]
        assert prompts[3].where == where
        assert [turn["role"] for turn in prompts[3].row["messages"]] == ["system", "user"]
    assert open_prompts(describe(recipe("grpo", path=file, **asked)), "train")[3].row["level"] == 5


def test_held_out_rows_are_in_no_other_split_and_the_limit_is_drawn(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", *(thinking(question=f"{i}?") for i in range(50)))

    def split(**asked: Any) -> tuple[list[str], list[str]]:
        facts = describe(recipe(path=file, validation=0.2, **asked))
        return tuple([one for one, _ in texts(open_samples(facts, split))] for split in ("train", "validation"))  # type: ignore[return-value]

    train, held = split()
    assert (len(train), len(held), len({*train, *held})) == (40, 10, 50)
    limited, same = split(limit=15)
    assert len(limited) == 15
    assert same == held
    assert set(limited) < set(train)
    assert split(seed=1)[1] != held


def test_long_rows_and_rows_without_a_teacher_are_left_out_and_counted(tmp_path: Path) -> None:
    long = thinking(thought="x" * 500)
    file = write(
        tmp_path / "rows.jsonl", thinking(), long, {"problem": "1+1?", "answer": "2"}, {"problem": "?", "answer": None}
    )
    facts = describe(recipe(path=file, validation_path=write(tmp_path / "v.jsonl", thinking()), max_length=200))
    assert (facts.train, facts.rows, facts.left_out) == (1, 1, 3)
    facts = describe(recipe("grpo", path=file, validation_path=write(tmp_path / "v.jsonl", thinking()), max_length=200))
    assert (facts.train, facts.left_out) == (3, 1)


def test_documents_are_learnt_whole_and_cut_where_they_are_long(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc\n===\ndefghij\n")
    facts = describe(
        recipe(source="documents", path=str(tmp_path / "a.txt"), validation_path=str(tmp_path / "a.txt"), max_length=5)
    )
    assert texts(open_samples(facts, "train")) == [
        ("abc<|im_end|>", "bc<|im_end|>"),
        ("defgh", "efgh"),
        ("ij<|im_end|>", "j<|im_end|>"),
    ]
    assert (facts.rows, facts.train, facts.longest, facts.stops) == (2, 3, 5, (257,))
    file = write(tmp_path / "b.jsonl", {"text": "abc"}, {"text": " "}, {"text": "abcde"})
    packed = describe(recipe(source="documents", path=file, validation=0.4, max_length=12, packing=True))
    assert packed.rows == 1
    file = write(tmp_path / "c.jsonl", thinking())
    assert "c.jsonl:1: source documents reads the field text, and the row has messages" in refused(
        recipe(source="documents", path=file, validation=0.5)
    )


def test_packs_hold_each_row_once_and_whole(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"source": "arithmetic", "problems": 200, "test_problems": 10, "max_length": 512}
    loose = open_samples(describe(recipe(**asked)), "train")
    facts = describe(recipe(**asked, packing=True))
    packs = open_samples(facts, "train")
    rows = [
        (one.tokens[end - length : end].tolist(), one.learnt[end - length : end].tolist())
        for one in packs
        for length, end in zip(one.lengths, accumulate(one.lengths), strict=True)
    ]
    assert sorted(rows) == sorted((one.tokens.tolist(), one.learnt.tolist()) for one in loose)
    assert (facts.train, facts.rows, facts.longest) == (len(packs), 200, max(len(one.tokens) for one in packs))
    assert facts.tokens == sum(len(one.tokens) for one in packs)
    assert max(len(one.tokens) for one in packs) <= 512
    assert sum(len(one.tokens) <= 256 for one in packs) <= 1  # two such would be one
    assert packs.packed
    assert not loose.packed


def test_samples_are_made_once_and_anew_when_something_else_decides(tmp_path: Path, cache: Path) -> None:
    file = Path(write(tmp_path / "rows.jsonl", thinking(), thinking("3?")))
    first = describe(recipe(path=str(file), validation=0.5))
    made = first.samples.stat().st_ino
    assert describe(recipe(path=str(file), validation=0.5)) == first
    assert first.samples.stat().st_ino == made
    others = [
        recipe(path=str(file), validation=0.5, max_length=900),
        recipe(path=str(file), validation=0.5, model={"chat_template": "r1"}),
        recipe("grpo", path=str(file), validation=0.5),
        recipe(path=str(file), validation=0.5, seed=1),
    ]
    write(file, thinking("changed?"), thinking("3?"))
    others.append(recipe(path=str(file), validation=0.5))
    keys = {first.samples, *(describe(one).samples for one in others)}
    assert len(keys) == 6
    assert sorted(cache.iterdir()) == sorted(keys)  # nothing half-made is left

    (first.samples / "train.arrow").write_bytes(b"")
    with pytest.raises(UserError, match="train.arrow, is damaged"):
        open_samples(first, "train")
    assert TextFacts.model_validate_json(first.model_dump_json()) == first


def test_a_file_that_the_drive_does_not_give_is_named(tmp_path: Path) -> None:
    def broken() -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(UserError, match=r"a.jsonl cannot be read: Input/output error"):
        list(rows(Source("a.jsonl", ".jsonl", tmp_path / "a.jsonl", broken), None))


def test_what_the_killed_left_is_cleared_when_it_is_old(cache: Path) -> None:
    for name, age in ((".new", 0), (".old", 30 * 24 * 3600)):
        (cache / name).mkdir(parents=True)
        (cache / name / "train.arrow").touch()
        os.utime(cache / name, (time.time() - age,) * 2)
    kept(cache, {}, lambda _: {})
    assert (cache / ".new").exists()
    assert not (cache / ".old").exists()


def test_a_damaged_directory_is_named(tmp_path: Path) -> None:
    asked = recipe(path=write(tmp_path / "rows.jsonl", thinking(), thinking("3?")), validation=0.5)
    facts = describe(asked)
    (facts.samples / "train.arrow").write_bytes(b"x")
    assert refused(asked) == f"data: the samples in {facts.samples} are damaged; remove that directory, and run again"
    (facts.samples / "train.arrow").unlink()
    with pytest.raises(UserError, match="is not there"):
        open_samples(facts, "train")


def test_samples_that_are_gone_are_made_again_where_they_come_out_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", thinking(), thinking("3?"))
    asked = recipe(path=file, validation=0.5)
    facts = describe(asked)
    before = texts(open_samples(facts, "train"))
    shutil.rmtree(facts.samples)
    restore(asked, facts)
    assert texts(open_samples(facts, "train")) == before
    shutil.rmtree(facts.samples)
    write(tmp_path / "rows.jsonl", thinking("changed?"), thinking("3?"))
    with pytest.raises(UserError, match="are not the same when made again"):
        restore(asked, facts)


def test_several_that_want_the_same_at_once_get_the_same(cache: Path) -> None:
    together = threading.Barrier(3, timeout=60)

    def make(directory: Path) -> dict[str, Any]:
        together.wait()
        (directory / "train.arrow").write_text("whole")
        together.wait()
        return {"train": 1}

    with ThreadPoolExecutor(3) as pool:
        found = [one.result() for one in [pool.submit(kept, cache, {"a": 1}, make) for _ in range(3)]]
    assert found == [(next(cache.iterdir()), {"train": 1})] * 3
    assert len(list(cache.iterdir())) == 1


def test_who_is_stopped_leaves_nothing(cache: Path) -> None:
    def make(directory: Path) -> dict[str, Any]:
        (directory / "train.arrow").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(cache, {"a": 1}, make)
    assert list(cache.iterdir()) == []


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    answers = write(tmp_path / "answers.jsonl", {"problem": "1+1?", "answer": "2"}, {"problem": "2+2?", "answer": "4"})
    good = write(tmp_path / "good.jsonl", thinking(), thinking("3?"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(thinking()) + "\n{oops\n")
    strange = write(tmp_path / "strange.jsonl", {"a": 1})
    half = {"validation": 0.5}
    assert "no row of " + answers + " has an assistant turn" in refused(recipe(path=answers, **half))
    assert "none of the 1 training rows of" in refused(recipe(path=good, max_length=10, **half))
    assert "none of the 1 training prompts of" in (short := refused(recipe("grpo", path=good, max_length=10, **half)))
    assert "the shortest has" in short
    assert "broken.jsonl:2: not JSON" in refused(recipe(path=str(broken), **half))
    assert "strange.jsonl:1: it has the fields a; `zerofit prepare`" in refused(recipe(path=strange, **half))
    assert "data.path: /nowhere/x does not exist" in refused(recipe(path="/nowhere/x", **half))
    assert "data.validation: there is neither validation_path nor test_path" in refused(recipe(path=good))
    assert "data.validation: 0.9 leaves none of the 2 training rows" in refused(recipe(path=good, validation=0.9))
    empty = write(tmp_path / "empty.jsonl")
    assert f"data.path: there is no row in {empty}" in refused(recipe(path=empty, **half))
    hopeless = write(tmp_path / "hopeless.jsonl", {"problem": "?", "answer": None})
    assert "all 1 are blank or say nothing" in refused(recipe(path=hopeless, **half))
    assert "largest=1: are to be at least" in refused(recipe(source="arithmetic", largest=1))
    (tmp_path / "bad.jinja").write_text("{{ messages[-1].content.split('</think>')[-1] }}")
    bad = {"chat_template": str(tmp_path / "bad.jinja")}
    assert "turn 2 cannot be told apart in what the chat template of bytes writes" in refused(
        recipe(path=good, **half, model=bad)
    )


def test_the_launcher_needs_no_torch_for_bytes(tmp_path: Path) -> None:
    """It describes data before ranks start; `zerofit plan` does no more."""
    code = (
        "import sys; from text_examples import recipe; from zerofit.data.text import describe; "
        "describe(recipe(source='arithmetic', problems=5, test_problems=2)); print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False\n"
