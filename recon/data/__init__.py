"Datasets: scans, training points, the file format and its reader."
from .reader import ReconDataset

__all__ = ["ReconDataset"]
