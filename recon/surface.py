"Kept name of `recon.mesh.surface`, for scripts written before."
from .mesh.surface import *  # noqa: F403
