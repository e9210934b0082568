"""Two processes with half the batch each are one process with the whole batch: same losses, same validation curve."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from pipeline.records import RunRecord, RunStore
from pipeline.training.distributed import World, join
from tests.pipeline.tiny import TINY, environment, run

# Adam's first steps are the sign of the gradient, which turns rounding into whole steps: small ones keep the paths together.
OVERRIDES = ("train.batch_size=4", "train.log_every=1", "train.lr=0.00002")


def under_torchrun(out: Path, processes: int, *overrides: str) -> RunRecord:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         "-m", "pipeline", "train", "--out", str(out), *TINY, *OVERRIDES, *overrides],
        capture_output=True, text=True, timeout=240, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (run_id,) = RunStore(out / "runs").ids()
    return RunStore(out / "runs").record(run_id)


def test_two_gloo_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    alone = run(tmp_path / "one", *OVERRIDES)
    together = under_torchrun(tmp_path / "two", 2)
    assert together.id == alone.id  # the same config is the same run, on any number of processes
    assert together.provenance["world_size"] == 2 and alone.provenance["world_size"] == 1
    assert together.provenance["images_seen"] == alone.provenance["images_seen"] == 32
    assert len(together.history()) == len(alone.history()) == 10
    for one, two in zip(alone.history(), together.history(), strict=True):
        assert one.keys() == two.keys() and one["iteration"] == two["iteration"]
        for name in one.keys() - {"seconds", "kind", "iteration"}:
            exact = 1e-5 if one["iteration"] == 1 else 2e-3
            assert two[name] == pytest.approx(one[name], rel=exact, abs=exact / 10), (one["iteration"], name)


def average(rank: int, port: int, results: Any) -> None:
    world = joined(rank, port)
    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True), torch.zeros(1)]
    parameters[0].grad = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
    parameters[1].grad = torch.full((2, 2), float(rank))
    world.average_gradients(parameters)
    terms = world.mean({"gan": torch.tensor(float(rank)), "pixel": torch.tensor(4.0)})
    gradients = [p.grad.tolist() for p in parameters if p.grad is not None]
    results.put((rank, gradients, {k: v.item() for k, v in terms.items()}, world.any(rank == 1, torch.device("cpu"))))
    world.barrier()
    torch.distributed.destroy_process_group()


def joined(rank: int, port: int) -> World:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank)
    )
    return join(torch.device("cpu"))


def share(rank: int, port: int, results: Any) -> None:
    world = joined(rank, port)

    def failing() -> int:
        if world.rank == 1:
            raise UserError("the second process fails")
        return 1

    said = []
    for attempt in (lambda: world.gather(failing), lambda: world.of_main(lambda: 1 / 0)):
        try:
            attempt()
        except (UserError, ZeroDivisionError) as error:
            said.append(str(error))
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(
        memory_format=torch.channels_last
    )
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(rank + 5)
    world.copy_main(network)
    values = {float(value) for tensor in network.state_dict().values() for value in tensor.flatten()}
    results.put((rank, world.gather(lambda: rank * 10), world.of_main(lambda: rank), said, values))
    world.barrier()
    torch.distributed.destroy_process_group()


def in_two_processes(worker: Callable[[int, int, Any], None]) -> list[Any]:
    """What `worker` puts into its queue, in the order of the processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=worker, args=(rank, port, results)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return found


def test_what_one_process_finds_or_fails_at_all_learn() -> None:
    for rank, (which, gathered, of_main, said, values) in enumerate(in_two_processes(share)):
        assert which == rank and gathered == [0, 10] and of_main == 0
        assert said == ["the second process fails", "division by zero"]
        assert values == {5.0}, "weights, statistics and counters of the main process"


def test_gradients_terms_and_flags_are_shared() -> None:
    found = in_two_processes(average)
    for rank, (which, gradients, terms, flag) in enumerate(found):
        assert which == rank
        assert gradients == [[1.5, 3.0, 4.5], [[0.5, 0.5], [0.5, 0.5]]]
        assert terms == {"gan": 0.5, "pixel": 4.0} and flag


def test_a_batch_that_does_not_divide_is_refused() -> None:
    World(0, 2).check_batch(8, 2)
    with pytest.raises(UserError, match="not divisible by 2 processes x 3"):
        World(0, 2).check_batch(8, 3)
