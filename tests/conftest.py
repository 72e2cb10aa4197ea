"""What tests of both packages share: weights and data, with a skip that says what is not there."""

import ast
import copy
import gc
import http.server
import importlib
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minbert
from minbert.errors import MinbertError

ROOT = Path(__file__).parents[1]

Reply = tuple[int, bytes, dict[str, str]]  # status, body, headers


class Loopback(http.server.ThreadingHTTPServer):
    """A server on this machine that answers GET, HEAD and ranges, with faults that a test asks for.

    It answers a path from `replies`, else by `answer`, which a test may replace; `answer` gives the file named by the
    path's last part.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), LoopbackHandler)
        self.files: dict[str, bytes] = {}
        self.replies: dict[str, Reply] = {}
        self.answer: Callable[[str], Reply] = lambda path: (200, self.files[path.rpartition("/")[2]], {})
        self.breaks: dict[str, list[int]] = {}  # bytes to send of the next bodies of a file before hanging up
        self.ranges = True
        self.delay = 0.0  # seconds before each body
        self.log: list[tuple[str, str, str | None, str | None]] = []  # method, path, Range, Authorization

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, name: str) -> list[str | None]:
        """The Range headers of the GETs of a file."""
        return [wanted for method, path, wanted, _ in self.log if method == "GET" and path.endswith(f"/{name}")]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class LoopbackHandler(http.server.BaseHTTPRequestHandler):
    server: Loopback
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.server, urllib.parse.unquote(self.path.partition("?")[0])
        server.log.append((self.command, path, self.headers["Range"], self.headers["Authorization"]))
        status, content, headers = server.replies.get(path) or server.answer(path)
        stop = None
        if status == 200 and self.command == "GET":
            time.sleep(server.delay)
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            if server.ranges and wanted and int(wanted[1]):
                start, length = int(wanted[1]), len(content)
                status, content = (206, content[start:]) if start < length else (416, b"")
                headers = {**headers, "Content-Range": f"bytes {start}-{length - 1}/{length}"}
            breaks = server.breaks.get(path.rpartition("/")[2])
            stop = breaks.pop(0) if breaks else None
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:stop])
        if stop is not None:
            self.close_connection = True


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    """A server of this machine without files, for the tests of downloads of both packages."""
    server = Loopback()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Import(NamedTuple):
    """One import of a file of the two packages: by which module, of which one, and when it is carried out."""

    importer: str
    imported: str
    when: str  # "import", "call" (inside a function) or "typing" (never, but by a type checker)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch: bytes depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def deep_calls() -> Iterator[None]:
    """For input that uses up the stack: no object of another test is collected there, as its finalizer would fail."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def at_once() -> Callable[[Callable[[int], Any]], list[Any]]:
    """A function of work: the results of ``work(0)`` to ``work(3)``, begun together, each in a thread of its own."""

    def run(work: Callable[[int], Any]) -> list[Any]:
        start = threading.Barrier(4)

        def begin(number: int) -> Any:
            start.wait(60)
            return work(number)

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(begin, range(4)))

    return run


@pytest.fixture(params=["reference", "fast"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with the formulas as they are written out and once with the fused functions."""
    before = minbert.get_kernels()
    minbert.set_kernels(request.param)
    yield request.param
    minbert.set_kernels(before)


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def check_modes(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], None]]:
    """Sets the umask, and gives a function of a folder: everything in it must have the mode that the umask leaves."""
    before = os.umask(request.param)

    def check(folder: Path) -> None:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        assert any(path.is_file() for path in found.values())
        wanted = {name: (0o777 if path.is_dir() else 0o666) & ~request.param for name, path in found.items()}
        modes = {name: path.stat().st_mode & 0o7777 for name, path in found.items()}
        assert {name: oct(mode) for name, mode in modes.items() if mode != wanted[name]} == {}

    yield check
    os.umask(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def modules(root: Path) -> dict[str, ast.Module]:
    """Every module of the two packages by its dotted name, parsed."""
    files = [path for package in ("minbert", "multitask") for path in (root / package).rglob("*.py")]
    return {_dotted(path.relative_to(root)): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@pytest.fixture(scope="session")
def imports(modules: dict[str, ast.Module]) -> list[Import]:
    """Every import of the two packages, wherever in a file it stands; ``from a import b`` is one of a.b if a module."""

    def walk(importer: str, node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}: a relative import"
            for name in {f"{node.module}.{alias.name}" for alias in node.names}:
                yield Import(importer, name if name in modules else str(node.module), when)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (found for each in node.body for found in walk(importer, each, "typing"))
            yield from (found for each in node.orelse for found in walk(importer, each, when))
        else:
            inner = "call" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else when
            yield from (found for each in ast.iter_child_nodes(node) for found in walk(importer, each, inner))

    return [found for name, tree in modules.items() for found in walk(name, tree, "import")]


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


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

    Eleven tests use it: 5,500 cases in a plain run, 137,500 with ``-m slow``.
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


@pytest.fixture(scope="session")
def remember_parts() -> Callable[[], Callable[[], None]]:
    """A function that remembers which parts are registered, and gives one that forgets whatever came since."""
    from multitask import plugins

    def states() -> dict[str, dict[str, Any]]:
        return {
            what: {key: copy.copy(value) for key, value in vars(registry).items()}
            for what, registry in plugins.REGISTRIES.items()
        }

    def remember() -> Callable[[], None]:
        before = states()

        def forget() -> None:
            for what, registry in plugins.REGISTRIES.items():
                vars(registry).update({key: copy.copy(value) for key, value in before[what].items()})
            plugins._loaded.clear()
            plugins._warned.clear()

        return forget

    return remember


@pytest.fixture
def plans(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What examples/reproduction_plan.py defines."""
    monkeypatch.syspath_prepend(str(root / "examples"))
    return importlib.import_module("reproduction_plan")
