"Processes that tests start: to kill them, or to have a clean one with the large libraries loaded."
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from warm_kernels import leave

ROOT = Path(__file__).resolve().parents[2]
# Importing these takes longer than most pages and scripts run: they are forked from a process that has them and nothing
# of recon.
LIBRARIES = "torch torch._dynamo numpy scipy.spatial matplotlib.pyplot trimesh cv2 h5py PIL.Image " \
            "plotly.graph_objects ipywidgets torchmetrics tqdm warp anny.models accelerate safetensors.torch tyro " \
            "skimage.measure yaml nbclient nbformat requests nbdev.test".split()


def forked(work) -> int:
    "Do `work` in a silent copy of this process, the leader of its group; its number. It exits with 1 if that fails."
    child = os.fork()
    if child:
        return child
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _run_notebook(notebook: Path, log: Path, folder: str):
    "What a forked process does: `nbdev_test` of one page, printing into `log`; `folder` is for what it leaves."
    gc.freeze()         # or its collections copy what it shares with others
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ["TMPDIR"], tempfile.tempdir = folder, None
    multiprocessing.set_start_method(None, force=True)   # the system's own, as in a process that nobody forked
    from nbdev.config import get_config
    from nbdev.test import test_nb

    os.chdir(notebook.parent)                   # the settings are those of the page's project
    config = get_config()
    os.chdir(config.nbs_path)
    passed, _ = test_nb(notebook, skip_flags=config.tst_flags.split(), do_print=True, basepath=config.config_path)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if passed else 1)


def run_notebook(notebook: Path, log: Path) -> int:
    "Exit code of a page that runs in a process of its own, with one thread."
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as folder:
        process = _start(_run_notebook, notebook, log, folder)
        process.join()
    return process.exitcode


# A server of our own: that of the product's pools, which they start in this process, has recon loaded.
SERVER = forkserver.ForkServer()
SERVER.set_forkserver_preload(LIBRARIES)
OURS = dict(connect_to_new_process=SERVER.connect_to_new_process, get_inherited_fds=SERVER.get_inherited_fds)


def _start(work, *arguments):
    "A process of its own, with one thread, in which the libraries are loaded and nothing of recon."
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    one_thread = dict(OMP_NUM_THREADS="1")              # read when the libraries are loaded
    with mock.patch.multiple(forkserver, **OURS), mock.patch.dict(os.environ, one_thread):
        process.start()
    return process


class Python:
    """As `subprocess.Popen([sys.executable, *arguments], start_new_session=True)` with pipes for text, without the
    seconds in which Python loads the libraries. It hears Ctrl-C even where the tests do not."""

    def __init__(self, arguments, cwd=None, env=None):
        self.args = [str(word) for word in arguments]
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name)/name for name in ("out", "err")]
        self.process = _start(_run_python, self.args, str(cwd or os.getcwd()), dict(env or os.environ), *self.files)
        self.pid, self.kill = self.process.pid, self.process.kill

    @property
    def returncode(self) -> int: return self.process.exitcode

    def poll(self) -> int: return self.process.exitcode

    def send_signal(self, number): os.kill(self.pid, number)

    def wait(self, timeout=None) -> int:
        self.process.join(timeout)
        if self.returncode is None: raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def printed(self, stream: int = 0) -> str:
        "What it has printed so far."
        file = self.files[stream]
        return file.read_text(errors="replace") if file.exists() else ""

    def communicate(self, timeout=None) -> tuple[str, str]:
        self.wait(timeout)
        return self.printed(0), self.printed(1)


def run_python(arguments, cwd=None, env=None) -> subprocess.CompletedProcess:
    "What `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` returns, sooner."
    process = Python(arguments, cwd, env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _run_python(words: list, cwd: str, env: dict, out: Path, err: Path):
    "What a forked process does: as if `python` had been called with these words."
    gc.freeze()
    for file, stream in (out, 1), (err, 2):
        with file.open("wb") as opened:
            os.dup2(opened.fileno(), stream)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)   # the system's own, as in a process that nobody forked
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    here = cwd if words[0] in ("-m", "-c") else str(Path(words[0]).resolve().parent)
    ours = {str(ROOT), str(Path(__file__).parent), ""}
    given = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [here, *given, *(path for path in sys.path if path not in ours)]
    assert "recon" not in sys.modules, "another server forked this"
    leave(_main(words))


def _main(words: list) -> int:
    "Run a module, a program or a file as `__main__`; its exit code."
    sys.argv = words[1:] if words[0] == "-m" else words
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
