"Meshes: sampling, queries, views. One code for CPU and GPU."
from .query import MeshQuery

__all__ = ["MeshQuery"]
