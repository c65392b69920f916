"""Whatever stands in a strategy's file, it is taken or refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_examples import FACTS, gpus, recipe
from strategy_files import TRAIN, WILD, chosen, refused, write

from zerofit.config.errors import UserError
from zerofit.plan.accelerate_keys import DEEPSPEED, FSDP, PARALLELISM, TOP
from zerofit.plan.batch import make_batches
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.strategy import resolve_strategy


def refusal(call: Any) -> str:
    """Why the user's error is one; empty where there is none."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats(allow_nan=False) | st.sampled_from(["", "auto", "cpu"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["stage", "type", "a"]), inner),
    max_leaves=4,
)
ANYTHING = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANYTHING
@given(name=st.sampled_from(sorted(WILD)), value=JUNK, data=st.data())
def test_any_value_of_any_key_of_accelerate_is_taken_or_refused_in_a_line(
    tmp_path: Path, name: str, value: Any, data: st.DataObject
) -> None:
    made = dict(WILD[name])
    section = data.draw(st.sampled_from([None, *(key for key in made if key.endswith("_config"))]))
    if section is None:
        made[data.draw(st.sampled_from(sorted(TOP)))] = value
    else:
        rules = {"deepspeed_config": DEEPSPEED, "fsdp_config": FSDP, "parallelism_config": PARALLELISM}[section]
        made[section] = {**made[section], data.draw(st.sampled_from(sorted(rules))): value}
    path = write(tmp_path, made)
    assert "\n" not in refusal(lambda: chosen(path))


@ANYTHING
@given(
    key=st.sampled_from(["zero_optimization", "bf16", "optimizer", "scheduler", "train_batch_size", "aio"]), value=JUNK
)
def test_any_value_of_deepspeeds_keys_is_taken_or_refused_in_a_line(tmp_path: Path, key: str, value: Any) -> None:
    path = write(tmp_path, {"zero_optimization": {"stage": 2}, key: value}, "ds.json")
    said = recipe(strategy={"deepspeed": path}, train=TRAIN)
    batches = make_batches(said, FACTS, 8)
    assert "\n" not in refusal(lambda: make_deepspeed(said, resolve_strategy(said), batches, "bf16", gpus(8)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(lambda: chosen("no.yaml")) == "strategy.accelerate: cannot read no.yaml: No such file or directory"
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert "is no file of `accelerate config`" in refused(lambda: chosen(str(path)))
    path.write_text("a: {\n")
    assert f"{path}:2: not YAML" in refused(lambda: chosen(str(path)))
    path.write_text("distributed_type: FSDP\nfsdp_config: 3\n")
    assert "fsdp_config must be a mapping, not 3" in refused(lambda: chosen(str(path)))
