"""Two processes that train together do what one does on batches of twice the size, and survive the loss of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from minbert.files.storage import write_json
from multitask.settings.config import RunConfig
from multitask.training.checkpoints import latest_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

MakeConfig = Callable[..., RunConfig]
NO_DROPOUT = ["encoder.dropout=0", *(f"tasks.{name}.dropout=0" for name in ("sst", "para", "sts"))]

# 20 rounds in float64. The last batch has fewer rows than the others: of para one, so one process has none.
SCRIPT = """
import json, sys, numpy as np, torch
from minbert.files.storage import write_tensors
from multitask.settings.config import RunConfig
from multitask.distributed import is_main, process_group
from multitask.model.build import build_model
from multitask.data.load import to_task_data, prepare
from multitask.training.loop import TrainState, build_sampler, train_rounds
from multitask.updates.stepper import Stepper
from multitask.plugins import load_plugin
torch.set_num_threads(1)
for plugin in sys.argv[3:]:
    load_plugin(plugin)
config = RunConfig.from_dict(json.load(open(sys.argv[1])))
with process_group():
    prepared = prepare(config)
    torch.manual_seed(0)
    model, tokenizer = build_model(prepared.config)
    model.double()
    data = to_task_data(prepared.train, model.tasks, tokenizer, model.max_length, ahead=False)
    sampler = build_sampler(prepared.config, {name: len(rows) for name, rows in data.items()})
    stepper = Stepper(model, config.train, np.random.default_rng(0))
    stepper.update.double()
    rounds = list(train_rounds(model, stepper, sampler, data, config.train, TrainState(), device=torch.device("cpu")))
    assert len(rounds) == 20
    if is_main():
        logged = torch.tensor([[s.rows, s.loss, s.grad_norm] for r in rounds for s in r.tasks.values()]).double()
        write_tensors(__import__("pathlib").Path(sys.argv[2]), {**model.state_dict(), "logged": logged})
"""


def start(ranks: int, *command: object) -> list[subprocess.Popen[bytes]]:
    """The same Python command in so many processes, told about each other as torchrun tells them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    words = [sys.executable, *map(str, command)]
    return [
        subprocess.Popen(words, env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(ranks)
    ]


def ended(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Standard output and error of a process that ends by itself within two minutes."""
    try:
        output, messages = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return output.decode(), messages.decode()


def finish(processes: list[subprocess.Popen[bytes]], status: int = 0) -> list[str]:
    """Their messages, when all have ended with ``status``."""
    messages = [ended(process)[1] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), messages
    return messages


@pytest.mark.parametrize(
    ("update", "reduction", "accumulate"),
    [
        *(("separate", reduction, accumulate) for reduction in ("mean", "sum") for accumulate in (1, 3)),
        *((update, reduction, 1) for update in ("combined", "pcgrad") for reduction in ("mean", "sum")),
        *((update, "mean", 3) for update in ("cagrad", "famo", "uncertainty")),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch(
    make_config: MakeConfig, root: Path, update: str, reduction: str, accumulate: int, tmp_path: Path
) -> None:
    samples = {"sst": 155, "para": 153, "sts": 160}
    plugin = root / "examples" / "plugins" / f"{update}.py"
    own = plugin.exists()  # known to the processes alone
    sets = [*NO_DROPOUT, f"train.update={'combined' if own else update}", f"train.accumulate={accumulate}"]
    sets += ["tasks.sst.class_weights=[1.0, 0.5, 2.0, 1.5, 0.0]"]
    sets += [f"tasks.{name}.sample_size={rows}" for name, rows in samples.items()]
    sets += [f"tasks.{name}.reduction={reduction}" for name in samples]
    results = []
    for ranks, batch in ((1, 8), (2, 4)):
        batches = [f"tasks.{name}.batch_size={batch}" for name in samples]
        config = make_config(*sets, *batches, "train.rounds=none", epochs=1)
        values = config.to_dict()
        values["train"]["update"] = update
        write_json(tmp_path / "config.json", values)
        files = [tmp_path / "config.json", tmp_path / f"{ranks}.safetensors", *([plugin] if own else [])]
        finish(start(ranks, "-c", SCRIPT, *files))
        results.append(load_file(tmp_path / f"{ranks}.safetensors"))
    one, two = results
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert (two[name] - expected).abs().max().item() <= 1e-9, name
    assert one["logged"][-3:, 0].tolist() == [3, 1, 8]


def options(config: RunConfig, folder: Path) -> list[str]:
    """Arguments of ``train`` that come to the same as ``config``."""
    tasks = folder / "tasks.toml"
    lines = []
    for task in config.tasks:
        lines.append(
            f'[tasks.{task.name}]\ntrain = "{task.train}"\ndev = "{task.dev}"\nbatch_size = {task.batch_size}\n'
        )
    tasks.write_text("".join(lines), encoding="utf-8")
    return ["--tasks", str(tasks), "--weights", config.encoder.weights, "--epochs", "2", "--rounds", "18", "--quiet"]


SAVING = ["--resume", "--save-every", "2", "--keep-optimizer"]


def torchrun(folder: Path, config: RunConfig) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", "--standalone"]
    command += ["-m", "multitask", "train", *options(config, folder), "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *SAVING], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def process_of_rank(parent: int, rank: int) -> int:
    """The child of torchrun that was given this rank."""
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "status").read_text()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"\nPPid:\t{parent}\n" in status and b"RANK=%d" % rank in environment:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def contents(run: Path) -> dict[str, bytes]:
    last = latest_checkpoint(run / "checkpoints")
    assert last is not None
    files = [run / "metrics.jsonl", *sorted((run / "best").iterdir()), *sorted(last.glob("*.safetensors"))]
    return {path.name: path.read_bytes() for path in files}


def wait_for_rounds(run: Path, count: int, process: subprocess.Popen[bytes]) -> list[bytes]:
    """The lines of timing.jsonl as soon as there are so many."""
    file, deadline = run / "timing.jsonl", time.monotonic() + 120
    while True:
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        if len(lines) >= count:
            return lines
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline, "no rounds within two minutes"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    return {}


def undisturbed(shared: dict[str, Any], config: RunConfig, folder: Path) -> Path:
    """A run of two processes that nothing happened to."""
    if "run" not in shared:
        process = torchrun(folder, config)
        _, messages = ended(process)
        assert process.returncode == 0, messages
        shared["run"] = folder / "run"
    run: Path = shared["run"]
    return run


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_restarted_and_the_run_ends_in_the_same_bytes(
    shared: dict[str, Any], make_config: MakeConfig, tmp_path: Path, killed: int
) -> None:
    config = make_config()
    (tmp_path / "whole").mkdir()
    expected = contents(undisturbed(shared, config, tmp_path / "whole"))
    process = torchrun(tmp_path, config)
    lines = wait_for_rounds(tmp_path / "run", 7, process)
    os.kill(process_of_rank(process.pid, killed), signal.SIGKILL)
    _, messages = ended(process)
    assert process.returncode == 0, messages
    assert len(lines) < 18, "the run was over before it was killed"
    assert contents(tmp_path / "run") == expected
    # Times of rounds before the checkpoint: a run that had begun anew would have measured others.
    assert (tmp_path / "run" / "timing.jsonl").read_bytes().startswith(b"".join(lines[:4]))


@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_stops_both_and_resume_ends_in_the_same_bytes(
    shared: dict[str, Any], make_config: MakeConfig, tmp_path: Path, told: int
) -> None:
    config = make_config()
    (tmp_path / "whole").mkdir()
    expected = contents(undisturbed(shared, config, tmp_path / "whole"))
    command = ["-m", "multitask", "train", *options(config, tmp_path), "--out", tmp_path / "run", "--threads", 1]
    processes = start(2, *command, *SAVING)
    lines = wait_for_rounds(tmp_path / "run", 5, processes[0])
    processes[told].send_signal(signal.SIGTERM)
    finish(processes, status=128 + signal.SIGTERM)
    assert len(lines) < 18, "the run was over before it was told to stop"
    finish(start(2, *command, *SAVING))
    assert contents(tmp_path / "run") == expected


def test_evaluation_and_prediction_are_shared_out(
    shared: dict[str, Any], make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    run = undisturbed(shared, config, tmp_path)
    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"{'good ' * (i % 7)}film\n" for i in range(500)), encoding="utf-8")
    scores = []
    for ranks in (1, 2):
        answers = tmp_path / f"{ranks}.tsv"
        command = ["-m", "multitask", "predict", run, "--task", "sst", "--input", rows, "--output", answers, "--quiet"]
        finish(start(ranks, *command))
        scores.append([ended(process) for process in start(ranks, "-m", "multitask", "evaluate", run, "--json")])
    assert (tmp_path / "2.tsv").read_bytes() == (tmp_path / "1.tsv").read_bytes()
    (one,), two = scores
    assert json.loads(one[0])["mean"] > 0
    assert two == [one, ("", "")]


def test_parts_of_ones_own_in_all_processes_or_none(make_config: MakeConfig, tmp_path: Path) -> None:
    files = sorted((Path(__file__).parents[1] / "plugins").glob("*.py"))
    chosen = ["tasks.sst.pooling=weighted", "tasks.sst.kind=ordinal", "tasks.sts.input=separate"]
    chosen += ["tasks.sts.head=difference", "tasks.sts.metric=rmse"]
    chosen += ["train.sampler=square-root", "train.schedule=inverse-root"]
    words = ["-m", "multitask", "train", *options(make_config(), tmp_path), "--select", "sst.mae"]
    words += [word for setting in chosen for word in ("--set", setting)]
    plugins = [word for file in files for word in ("--plugin", file)]
    finish(start(2, *words, *plugins, "--out", tmp_path / "run"))
    used = json.loads((tmp_path / "run" / "record.json").read_text())["plugins"]
    assert {part["file"] for part in used.values()} >= {"weighted.py", "ordinal.py", "difference.py", "rmse.py"}
    evaluate = ["-m", "multitask", "evaluate", tmp_path / "run", "--json", *plugins]
    (one,), (two, other) = ([ended(process) for process in start(ranks, *evaluate)] for ranks in (1, 2))
    assert json.loads(one[0])["tasks"]["sts"]["metric"] == "rmse"
    assert json.loads(one[0])["mean"] is None
    assert (two, other) == (one, ("", ""))

    script = tmp_path / "changed.py"  # the second process reads another state of a file
    changed = (files[-1].parent / "weighted.py").read_text() + "# changed\n"
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    (tmp_path / "0" / "weighted.py").write_bytes((files[-1].parent / "weighted.py").read_bytes())
    (tmp_path / "1" / "weighted.py").write_text(changed)
    script.write_text("import os, sys\nfrom multitask.__main__ import main\n")
    plugin = f"{str(tmp_path)!r} + '/' + os.environ['RANK'] + '/weighted.py'"
    script.write_text(script.read_text() + f"sys.exit(main([*sys.argv[1:], '--plugin', {plugin}]))\n")
    words = [script, "train", *options(make_config(), tmp_path), "--set", "tasks.sst.pooling=weighted"]
    _, message = finish(start(2, *words, "--out", tmp_path / "other"), status=1)
    assert "process 1 must agree with the main one: plugins.pooling weighted must be 'weighted.py, sha256" in message


def test_an_error_of_one_process_ends_all(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine").write_text("precious")
    command = ["-m", "multitask", "train", *options(make_config(), tmp_path), "--out", out]
    main, other = finish(start(2, *command), status=1)
    assert "must be empty, got a folder with files in it" in main
    assert "error in process 1: another process of this run has stopped" in other


def test_another_number_of_processes_can_not_resume(
    shared: dict[str, Any], make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    run = undisturbed(shared, config, tmp_path)
    command = ["-m", "multitask", "train", *options(config, tmp_path), "--out", run, "--resume"]
    (message,) = finish(start(1, *command), status=1)
    assert "ranks must be 2, got 1" in message


def test_standard_input_can_not_be_shared(tmp_path: Path) -> None:
    for message in finish(start(2, "-m", "multitask", "predict", tmp_path), status=2):
        assert "--input must be a file, which 2 processes can all read, got -" in message


# Rows in memory, of which the second process may have others.
FROM_PYTHON = """
import os, sys, torch
from multitask import Task, TrainConfig, train
from multitask.distributed import process_group
torch.set_num_threads(1)
rows = [{"text": "good film" if n % 2 else "bad story", "label": n % 2} for n in range(60)]
if len(sys.argv) > 3 and os.environ["RANK"] == "1":
    rows[-1]["label"] = 0
with process_group():
    task = Task(name="mood", text="text", label="label", batch_size=4)
    run = train(tasks=[task], data={"mood": {"train": rows}}, weights=sys.argv[1], settings=TrainConfig(rounds=2),
                out=sys.argv[2], progress=False)
    assert run.evaluate()["mood"].n == 6
"""


def test_processes_train_on_the_same_rows_in_memory(tiny_weights: Path, tmp_path: Path) -> None:
    finish(start(2, "-c", FROM_PYTHON, tiny_weights, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "record.json").read_text())["ranks"] == 2
    messages = finish(start(2, "-c", FROM_PYTHON, tiny_weights, tmp_path / "other", "changed"), status=1)
    assert "process 1 must agree with the main one: data.mood.train must be '60 rows, SHA-256 " in messages[1]
