"Procedural people: seeds in, textured watertight scans with registered bodies out."
from .person import VERSION, Person, make_person

__all__ = ["Person", "VERSION", "make_person"]
