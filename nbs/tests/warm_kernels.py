"""Jupyter kernels forked from a process that has the large libraries loaded, and nothing of recon.

To load them takes 5 s, and the tests start ninety kernels. `serve SOCKET` is that process. Jupyter starts each kernel
by `start SOCKET ...`, which stands for it: it gets the kernel's signals, and both end together. Where nobody serves,
it becomes a kernel of the usual kind."""
import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# Without those that look for a kernel when they are loaded: ipywidgets, plotly, k3d.
LIBRARIES = "torch numpy scipy.spatial scipy.stats scipy.sparse.linalg matplotlib.pyplot trimesh cv2 h5py PIL.Image " \
            "torchmetrics tqdm warp anny.models accelerate safetensors.torch skimage.measure yaml narwhals nbformat " \
            "requests ipykernel.kernelapp".split()
INLINE = "module://matplotlib_inline.backend_inline"


@contextlib.contextmanager
def offer_kernels():
    "Serve kernels; a value for JUPYTER_PATH, whose kernel `python3` they are."
    made = tempfile.TemporaryDirectory()
    folder = Path(made.name)
    address = folder/"socket"           # a system takes about 100 characters
    words = [sys.executable, "-S", "-E", __file__, "start", str(address), "-f", "{connection_file}"]
    spec = folder/"kernels"/"python3"/"kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(argv=words, display_name="python3", language="python")))
    server = subprocess.Popen([sys.executable, __file__, "serve", str(address)], stdin=subprocess.DEVNULL)
    try:
        while not address.exists() and server.poll() is None: time.sleep(.05)
        yield folder
    finally:
        server.terminate()
        made.cleanup()


def start(address: str, *arguments):
    "Ask for a kernel, hand on signals, end with it."
    server = socket.socket(socket.AF_UNIX)
    try: server.connect(address)
    except OSError: os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
    request = dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [1, 2])
    ended = server.recv(1)
    sys.exit(ended[0] if ended else 1)


def serve(address: str):
    "Load the libraries; then fork a kernel for each that asks."
    listening = socket.socket(socket.AF_UNIX)
    for name in LIBRARIES: __import__(name)
    gc.freeze()       # or each kernel's collections copy what they share
    listening.bind(address + ".new")
    listening.listen(64)
    os.rename(address + ".new", address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)     # nobody waits for those that watch over kernels
    while True:
        client, _ = listening.accept()
        if not os.fork():
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            watch(client)
        client.close()


def watch(client: socket.socket):
    "Fork the kernel; hand it the signals that arrive, kill it when its client is gone, tell how it ended."
    request, streams, _, _ = socket.recv_fds(client, 1 << 20, 2)
    while not request.endswith(b"\n"): request += client.recv(1 << 20)
    kernel = os.fork()
    if not kernel: run(json.loads(request), streams)
    with contextlib.suppress(OSError): os.setpgid(kernel, kernel)
    if not os.fork():                                 # one waits for signals, the other for the end
        with contextlib.suppress(OSError):
            while number := client.recv(1): os.killpg(kernel, number[0])
            os.kill(kernel, 0)                        # is it there?
            os.killpg(kernel, signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(kernel, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError): client.sendall(bytes([code % 256]))
    with contextlib.suppress(OSError): client.shutdown(socket.SHUT_RDWR)
    os._exit(0)


def run(request: dict, streams: list):
    "Be a kernel, as `python -m ipykernel_launcher` is."
    os.setpgid(0, 0)
    for stream, there in zip((1, 2), streams): os.dup2(there, stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(dict(MPLBACKEND=INLINE) | request["environment"])
    sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]      # it has been loaded
    if count := os.environ.get("OMP_NUM_THREADS"): sys.modules["torch"].set_num_threads(int(count))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [request["folder"], *given, *(path for path in sys.path if path not in (sys.path[0], *given))]
    sys.argv = ["ipykernel_launcher.py", *request["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    with contextlib.suppress(SystemExit): runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
    leave(0)


def leave(code: int):
    "End a forked process as Python ends, but for freeing what it shares with others, which would copy it."
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__": dict(start=start, serve=serve)[sys.argv[1]](*sys.argv[2:])
