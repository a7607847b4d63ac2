"Metrics: distances to the scan, its parts, tables. Pictures are in `recon.metrics.images`."
from ..body.model import REGIONS
from .align import align_icp, align_to_scan
from .parts import Regions, visible, volume_iou
from .surface import PROTOCOLS, box_iou, silhouette_iou, surface_metrics
from .tables import COLUMNS, markdown_table, paired_differences, summarise

__all__ = [
    "COLUMNS", "PROTOCOLS", "REGIONS", "Regions", "align_icp", "align_to_scan", "box_iou", "markdown_table",
    "paired_differences", "silhouette_iou", "summarise", "surface_metrics", "visible", "volume_iou",
]
