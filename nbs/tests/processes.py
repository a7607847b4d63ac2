"Processes that tests start: to kill them, or to have a clean one with the large libraries loaded."
import multiprocessing
import os
import sys
from pathlib import Path

# Importing these takes longer than most pages run: pages are forked from a process that has them and nothing of recon.
LIBRARIES = "torch numpy scipy.spatial matplotlib.pyplot trimesh cv2 h5py PIL.Image plotly.graph_objects " \
            "ipywidgets torchmetrics tqdm warp anny.models nbdev.test".split()


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


def _run_notebook(notebook: Path, log: Path):
    "What a forked process does: `nbdev_test` of one page, printing into `log`."
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"         # read when the libraries are loaded
    try:
        process = context.Process(target=_run_notebook, args=(notebook, log))
        process.start()
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
    process.join()
    return process.exitcode
