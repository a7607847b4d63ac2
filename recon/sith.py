"Kept name of `recon.runs.sith`, for scripts written before."
from .runs.sith import *  # noqa: F403
