"""A run's files follow the umask, so that a colleague can read a run where that is wanted."""

from collections.abc import Callable
from pathlib import Path

from multitask.__main__ import main
from multitask.settings.config import RunConfig
from multitask.training.train import train


def test_a_run_and_its_predictions(
    check_modes: Callable[[Path], None],
    make_config: Callable[..., RunConfig],
    course_like: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    train(make_config(epochs=1), run, progress=False, save_every=2, keep_optimizer=True)
    assert sorted(path.name for path in run.rglob("*.safetensors"))
    source = course_like / "ids-sst-dev.csv"
    words = ["predict", run, "--task", "sst", "--input", source, "--output", tmp_path / "out.tsv", "--quiet"]
    assert main([str(word) for word in words]) == 0
    check_modes(tmp_path)
