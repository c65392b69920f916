"""`zerofit convert DIR --to zero1|zero2|zero3`: a DeepSpeed checkpoint that another program has written.

DIR holds `latest` and the directory that it names, or is that directory. The program loads the result as its own:
`engine.load_checkpoint(OUTPUT)`, on as many ranks as were asked for. `--to single` and `--to ddp` make one file of
torch (models/zero_plain.py).

    python -m zerofit.launch.relocate_zero TAG STAGE OUTPUT --logs LOGS    # one rank, under `run_ranks`
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.strategy import ZERO_STAGE
from zerofit.launch import failure, lifeline, ops_cache
from zerofit.launch.environment import outer_world

TARGETS = ("zero1", "zero2", "zero3")
PLAIN = ("single", "ddp")


def is_deepspeed(directory: Path) -> bool:
    """Whether these are DeepSpeed's files, by their names."""
    directory = directory.expanduser()
    return (directory / "latest").is_file() or any(directory.glob("*_states.pt"))


def relocate_zero(source: Path, strategy: str, world: int | None, output: Path | None, *, debug: bool = False) -> int:
    """As `relocate`, of a directory that `is_deepspeed`. Raises UserError."""
    from zerofit.launch.dispatch import Launch, dispatch
    from zerofit.launch.relocate import begin, check_free
    from zerofit.launch.replan import how
    from zerofit.plan.hardware import cpu

    if strategy not in (*TARGETS, *PLAIN):
        raise UserError(
            f"--to {strategy}: {source} was written by another program's DeepSpeed, whose training state goes to "
            f"{', '.join((*TARGETS, *PLAIN))} alone; its weights begin any run: init_from: {source}"
        )
    tag, stage, ranks = _what(source)
    if strategy in PLAIN:
        return _plain(source, tag, how(f"zero{stage}", ranks), strategy, output)
    was, now = how(f"zero{stage}", ranks), how(strategy, world or ranks)
    if was == now:
        raise UserError(f"{source} was written by {was} already: there is nothing to do")
    whole = source.expanduser().absolute()
    output = (output or whole.with_name(f"{whole.name}-{strategy}-x{world or ranks}")).expanduser().absolute()
    check_free(output, whole)
    part = output.with_name(f".{output.name}.part")
    lock = begin(part)
    logs = part / ".logs"
    launch = Launch(
        run_dir=output,
        arguments=(str(tag), str(ZERO_STAGE[strategy]), str(part)),
        logs=logs,
        result=logs / "result.json",
        ranks=world or ranks,
        headline=f"writing {os.path.relpath(tag)} for {now}, on the CPU",
        module="zerofit.launch.relocate_zero",
    )
    try:
        code = dispatch(lambda *_: launch, nproc=None, debug=debug, show=lambda _: None, hardware=cpu())
        if code == 0:
            shutil.rmtree(logs)
            os.rename(part, output)
            there = os.path.relpath(output)
            print(
                f"{source}, written by {was}, is now {there} for {now}; go on with: engine.load_checkpoint({there!r})"
            )
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)
    return code


def _plain(source: Path, tag: Path, was: str, strategy: str, output: Path | None) -> int:
    """One file, whatever the number of ranks: all of them hold the same. Raises UserError."""
    from zerofit.launch.relocate import check_free
    from zerofit.models.zero_plain import write_plain

    whole = source.expanduser().absolute()
    output = (output or whole.with_name(f"{whole.name}-{strategy}.pt")).expanduser().absolute()
    check_free(output, whole)
    if output.is_dir():
        raise UserError(f"--output {output} is a directory: name the file to write")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_plain(tag, output)
    except (OSError, RuntimeError) as error:  # torch.save says of a full drive "unexpected pos"
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(f"{output} cannot be written: {why}") from None
    there = os.path.relpath(output)
    print(f"{source}, written by {was}, is now {there}; go on with: torch.load({there!r})['model'] and ['optimizer']")
    return 0


def _what(source: Path) -> tuple[Path, int, int]:
    """The tag's directory, and the stage and ranks that wrote it. Raises UserError."""
    import torch

    from zerofit.models.zero_anatomy import zero_anatomy
    from zerofit.models.zero_files import tag_directory

    try:
        tag = tag_directory(source.expanduser().absolute())
        assert tag is not None, "is_deepspeed has seen it"
        anatomy = zero_anatomy(tag)
    except UserError as error:
        said = str(error).removeprefix("init_from: ").partition("; if you trust")[0]
        raise UserError(said) from None
    if anatomy.dtype not in (torch.float32, torch.bfloat16):
        raise UserError(
            f"{tag} is of a model in {str(anatomy.dtype).removeprefix('torch.')}, which DeepSpeed does not hold on a "
            "CPU: convert checkpoints in bfloat16 or float32"
        )
    return tag, anatomy.stage, anatomy.ranks


def main() -> None:
    """Run as a process that `run_ranks` has started."""
    lifeline.watch()
    parser = argparse.ArgumentParser("zerofit.launch.relocate_zero", description=__doc__)
    parser.add_argument("tag", type=Path)
    parser.add_argument("stage", type=int)
    parser.add_argument("output", type=Path)
    parser.add_argument("--logs", type=Path, required=True)
    arguments = parser.parse_args()
    world = outer_world(os.environ)
    assert world is not None, "started without a launcher"

    def body() -> None:
        from zerofit.launch import group, workarounds

        group.join(world, "cpu")
        workarounds.quiet()
        ops_cache.hold(Path(os.environ["TORCH_EXTENSIONS_DIR"]))
        workarounds.apply()
        from zerofit.checkpoint.rewrite_zero import rewrite_zero

        rewrite_zero(arguments.tag, arguments.stage, arguments.output)
        group.leave()

    failure.guard(world.rank, arguments.logs, body)
    failure.finish()


if __name__ == "__main__":
    main()
