"""What tests of both packages share: weights and data, with a skip that says what is not there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minbert
from minbert.errors import MinbertError

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["reference", "fast"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with the formulas as they are written out and once with the fused functions."""
    before = minbert.get_kernels()
    minbert.set_kernels(request.param)
    yield request.param
    minbert.set_kernels(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_weights() -> Path:
    """A BERT of 2 layers, 32 wide, with random weights and a vocabulary of 100 tokens."""
    return ROOT / "weights" / "tiny-bert"


@pytest.fixture(scope="session")
def minilm_weights() -> Path:
    """all-minilm-l6-v2 out of the cache; skips where nobody has fetched it."""
    from minbert.files.registry import cache_folder

    folder = cache_folder() / "all-minilm-l6-v2"
    if not folder.is_dir():
        pytest.skip(f"all-minilm-l6-v2 is not in {folder.parent}: `multitask fetch weights all-minilm-l6-v2`")
    return folder


@pytest.fixture(scope="session")
def course_data() -> Path:
    """The course's files; skips where MINBERT_DATA names no folder of them."""
    folder = os.environ.get("MINBERT_DATA")
    if not folder:
        pytest.skip("MINBERT_DATA is not set: it names the folder of the course's files")
    if not (Path(folder) / "ids-sst-train.csv").is_file():
        pytest.fail(f"MINBERT_DATA={folder} holds no ids-sst-train.csv")
    return Path(folder)


@pytest.fixture(params=[500, pytest.param(12_500, marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function of a check and hypothesis strategies: calls the check with some hundred draws of them.

    Ten tests use it: 5,000 cases in a plain run, 125,000 with ``-m slow``.
    """

    def run(check: Callable[..., None], *strategies: Any) -> None:
        @settings(
            max_examples=request.param,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.tuples(*strategies))
        def one(drawn: tuple[Any, ...]) -> None:
            check(*drawn)

        one()

    return run


@pytest.fixture(scope="session")
def attempt() -> Callable[[Callable[[], Any]], tuple[Any, str]]:
    """A function of a call: its result, or None and the sentence of the package's own error; all else is raised."""

    def run(call: Callable[[], Any]) -> tuple[Any, str]:
        try:
            return call(), ""
        except MinbertError as error:
            return None, str(error)

    return run
