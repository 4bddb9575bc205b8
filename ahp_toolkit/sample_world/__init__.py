"""The embedded world: procedural, seeded people, things and places with full ground truth; nothing is downloaded.

``generate`` draws one scene, ``write_world`` writes a world as five miniature source datasets with planted hard cases,
``read_truth`` reads their truth back, ``gallery`` writes a contact sheet.
"""

from ahp_toolkit.sample_world.gallery import PALETTE, colour_labels, gallery
from ahp_toolkit.sample_world.scene import WorldObject, WorldPerson, WorldScene, generate, person_crop
from ahp_toolkit.sample_world.truth import Truth, planted, read_truth
from ahp_toolkit.sample_world.write import write_world

__all__ = [
    "PALETTE",
    "Truth",
    "WorldObject",
    "WorldPerson",
    "WorldScene",
    "colour_labels",
    "gallery",
    "generate",
    "person_crop",
    "planted",
    "read_truth",
    "write_world",
]
