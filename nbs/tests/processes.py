"Processes that tests start to kill them."

import os


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
