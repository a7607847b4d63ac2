"Kept name of `recon.runs.run`, for scripts written before."
from .runs.run import *  # noqa: F403
