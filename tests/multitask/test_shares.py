"""Two processes that train together do what one does on batches of twice the size, and read the same parts and rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from minbert.files.storage import write_json
from multitask.settings.config import RunConfig

MakeConfig = Callable[..., RunConfig]
NO_DROPOUT = ["encoder.dropout=0", *(f"tasks.{name}.dropout=0" for name in ("sst", "para", "sts"))]

# 20 rounds in float64. The last batch has fewer rows than the others: of para one, so one process has none.
# A text may have 12 tokens, so that some of a task with windows have several.
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
    data = to_task_data(prepared.train, model.tasks, tokenizer, 12, ahead=False)
    assert data["sst"].texts.windows.max() > 2
    sampler = build_sampler(prepared.config, {name: len(rows) for name, rows in data.items()})
    stepper = Stepper(model, config.train, np.random.default_rng(0))
    stepper.update.double()
    rounds = list(train_rounds(model, stepper, sampler, data, config.train, TrainState(), device=torch.device("cpu")))
    assert len(rounds) == 20
    if is_main():
        steps = [(s, r.cosines[name].values()) for r in rounds for name, s in r.tasks.items()]
        logged = torch.tensor([[s.rows, s.loss, s.grad_norm, *cosines] for s, cosines in steps], dtype=torch.float64)
        write_tensors(__import__("pathlib").Path(sys.argv[2]), {**model.state_dict(), "logged": logged})
"""


@pytest.mark.parametrize(
    ("update", "reduction", "accumulate", "moments"),
    [
        *(("separate", reduction, accumulate, "own") for reduction in ("mean", "sum") for accumulate in (1, 3)),
        ("separate", "mean", 1, "shared"),
        *((update, reduction, 1, "own") for update in ("combined", "pcgrad") for reduction in ("mean", "sum")),
        *((update, "mean", 3, "own") for update in ("uncertainty", "famo", "upgrad", "cagrad")),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch(
    start: Any,
    finish: Any,
    make_config: MakeConfig,
    root: Path,
    update: str,
    reduction: str,
    accumulate: int,
    moments: str,
    tmp_path: Path,
) -> None:
    samples = {"sst": 155, "para": 153, "sts": 160}
    plugin = root / "examples" / "plugins" / f"{update}.py"
    own = plugin.exists()  # known to the processes alone
    sets = [*NO_DROPOUT, f"train.update={'combined' if own else update}", f"train.accumulate={accumulate}"]
    sets += [f"train.moments={moments}", "train.log_conflict=true"]
    sets += ["tasks.sst.class_weights=[1.0, 0.5, 2.0, 1.5, 0.0]", "tasks.sst.long=windows"]
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
    assert one["logged"].shape == (60, 5)


def test_parts_of_ones_own_in_all_processes_or_none(
    start: Any, ended: Any, finish: Any, options: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
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
    run = train(tasks=[task], data={"mood": {"train": rows}}, weights=sys.argv[1], out=sys.argv[2], progress=False,
                settings=TrainConfig(rounds=2, hold_out=True))
    assert run.evaluate()["mood"].n == 6
"""


def test_processes_train_on_the_same_rows_in_memory(
    start: Any, finish: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    finish(start(2, "-c", FROM_PYTHON, tiny_weights, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "record.json").read_text())["ranks"] == 2
    messages = finish(start(2, "-c", FROM_PYTHON, tiny_weights, tmp_path / "other", "changed"), status=1)
    assert "process 1 must agree with the main one: data.mood.train must be '60 rows, SHA-256 " in messages[1]
