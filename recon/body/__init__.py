"Parametric bodies: what a dataset says about the person under the clothes."
from .model import BodyModel
from .anny import AnnyBody, load_anny

__all__ = ["AnnyBody", "BodyModel", "load_anny"]
