"""The long class lists of COCO-Stuff and ADE20K, in the order of their published ids."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(",") if name.strip())


# COCO things, ids 1..91 of the annotations (0..90 in label maps), the eleven never annotated ones included.
COCO_THINGS: tuple[str, ...] = _names("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign, stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, backpack,
umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl,
banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush
""")

# COCO-Stuff stuff, ids 92..182 of the annotations (91..181 in label maps).
COCO_STUFF: tuple[str, ...] = _names("""
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile,
cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other,
hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow,
plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other,
towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood,
water-other, waterdrops, window-blind, window-other, wood
""")

# ADE20K SceneParsing, ids 1..150 of the annotations.
ADE20K: tuple[str, ...] = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck,
tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land,
bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step,
tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")

# CelebAMask-HQ in the merged order of SEAN and (CA)2-SIS; parts are painted in this order, later over earlier.
CELEBAMASK_HQ: tuple[str, ...] = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
    "l_lip",
    "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

# The other order that circulates (label maps of face-parsing networks: brows first): nose 10, hair 17. Its name stays what runs
# call it; the data set's own script is not where it comes from.
CELEBAMASK_HQ_G_MASK: tuple[str, ...] = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth",
    "u_lip",
    "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip

# The 13 classes of SemanticStyleGAN, and its parts in the order they are painted, later over earlier: not that of the 19 classes,
# so that where parts overlap nose lies over glasses here, ears over hair, hat and earrings over neck and cloth.
CELEBAMASK_13: tuple[str, ...] = (
    "background", "skin", "eyes", "brows", "mouth", "nose", "ears", "hair", "neck", "cloth", "glasses", "hat", "earrings",
)  # fmt: skip
CELEBAMASK_13_PAINT: tuple[tuple[str, str], ...] = (
    ("skin", "skin"), ("eye_g", "glasses"), ("l_eye", "eyes"), ("r_eye", "eyes"), ("l_brow", "brows"), ("r_brow", "brows"),
    ("mouth", "mouth"), ("l_lip", "mouth"), ("u_lip", "mouth"), ("nose", "nose"), ("hair", "hair"), ("l_ear", "ears"),
    ("r_ear", "ears"), ("neck", "neck"), ("neck_l", "neck"), ("cloth", "cloth"), ("hat", "hat"), ("ear_r", "earrings"),
)  # fmt: skip

# Cityscapes: (name, train id or None), in the order of the 34 drawn label ids; license plate (-1) is kept last.
CITYSCAPES: tuple[tuple[str, int | None], ...] = (
    ("unlabeled", None), ("ego vehicle", None), ("rectification border", None), ("out of roi", None), ("static", None),
    ("dynamic", None), ("ground", None), ("road", 0), ("sidewalk", 1), ("parking", None), ("rail track", None),
    ("building", 2),
    ("wall", 3), ("fence", 4), ("guard rail", None), ("bridge", None), ("tunnel", None), ("pole", 5),
    ("polegroup", None),
    ("traffic light", 6), ("traffic sign", 7), ("vegetation", 8), ("terrain", 9), ("sky", 10), ("person", 11),
    ("rider", 12),
    ("car", 13), ("truck", 14), ("bus", 15), ("caravan", None), ("trailer", None), ("train", 16), ("motorcycle", 17),
    ("bicycle", 18), ("license plate", None),
)  # fmt: skip
