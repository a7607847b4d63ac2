"Metrics: distances to the scan, its parts, tables. Pictures are in `recon.metrics.images`."
from ..body.model import REGIONS
from .parts import Regions, visible, volume_iou
from .surface import PROTOCOLS, aligned, box_iou, align_icp, silhouette_iou, surface_metrics
from .tables import COLUMNS, as_table, paired, summarise

__all__ = ["COLUMNS", "PROTOCOLS", "REGIONS", "Regions", "aligned", "as_table", "box_iou", "paired", "align_icp", "silhouette_iou", "summarise", "surface_metrics", "visible", "volume_iou"]
