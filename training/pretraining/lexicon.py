"""The words of the synthetic worlds.

The household's own words are in every pool, so that the base model can say them; what belongs
together (hot, heat, microwave) is drawn independently in every world and therefore carries no
information.
"""

PLACES: dict[str, int] = {
    "armchair": 4, "bathtubbasin": 2, "bed": 3, "bench": 4, "bookcase": 4, "cabinet": 30, "cart": 3,
    "chest": 4, "coffeemachine": 2, "coffeetable": 4, "countertop": 5, "crate": 6, "desk": 4,
    "diningtable": 4, "drawer": 30, "dresser": 4, "fridge": 2, "garbagecan": 2,
    "handtowelholder": 4, "locker": 8, "microwave": 2, "ottoman": 3, "rack": 6, "safe": 3,
    "shelf": 16, "sidetable": 6, "sinkbasin": 3, "sofa": 4, "stoveburner": 6, "toaster": 2,
    "toilet": 2, "toiletpaperhanger": 3, "towelholder": 4, "trunk": 4, "tvstand": 3, "wardrobe": 4,
    "laundryhamper": 2, "windowsill": 4, "workbench": 3,
}  # fmt: skip
"""Kinds of places with the highest number that one room may hold (at least what the real layouts
hold)."""

CLOSED = (
    "cabinet",
    "drawer",
    "fridge",
    "microwave",
    "safe",
    "locker",
    "wardrobe",
    "trunk",
    "chest",
)
"""Kinds that start closed."""

OBJECTS: tuple[str, ...] = tuple(
    """alarmclock apple baseballbat basketball book bowl box bread butterknife candle cd cellphone
    cloth creditcard cup dishsponge egg fork glassbottle handtowel kettle keychain knife ladle
    laptop lettuce mug newspaper pan papertowel pen pencil peppershaker pillow plate plunger pot
    potato remotecontrol saltshaker soapbar soapbottle spatula spoon spraybottle statue tennisracket
    tissuebox toiletpaper toiletpaperroll tomato towel vase watch wateringcan winebottle lantern
    marble ribbon hammer brush mirror compass whistle teapot sponge coin scarf glove onion carrot
    lemon""".split()
)
"""Things that can be carried: the household's and some more."""

DEVICES: tuple[str, ...] = (
    "desklamp",
    "floorlamp",
    "heatlamp",
    "magnifier",
    "radio",
    "fan",
    "projector",
    "torch",
)
"""Things that stand somewhere and are switched on."""

ADJECTIVES: tuple[str, ...] = tuple(
    """shiny wet dry flat round soft hard dusty sticky bright dark blue red green pink sharp dull
    rusty golden frozen spicy salty sweet sour crispy smoky sealed signed stamped wrapped hot cool
    clean""".split()
)

VERBS: tuple[str, ...] = tuple(
    """polish soak drain press roll mash bake dust glue paint dye grind sand oil gild freeze season
    salt sugar pickle fry smoke seal sign stamp wrap heat clean cool use""".split()
)

APPLIANCES: tuple[str, ...] = tuple(
    """grinder press oven furnace altar anvil loom printer bucket barrel machine console cauldron
    kiln fountain pump scanner lathe mill tank vat microwave fridge sinkbasin stoveburner toaster
    coffeemachine""".split()
)

ROUTINES: tuple[str, ...] = tuple(
    "every each several spare extra odd old new other big small good best next last own".split()
)
"""Words that stand for whole procedures, drawn anew in every world. "Two" is not among them."""

INSTRUCTIONS = "Interact with a household to solve a task. Answer with one action at a time."

TEMPLATES: tuple[tuple[str, str], ...] = (
    ("go to {receptacle}", "move"),
    ("open {receptacle}", "look"),
    ("close {receptacle}", "look"),
    ("examine {object}", "look"),
    ("look", "look"),
    ("inventory", "look"),
    ("take {object} from {receptacle}", "act"),
    ("move {object} to {receptacle}", "act"),
    ("slice {object} with {object}", "act"),
)
"""Action forms that every world shares; each world adds those of its own verbs."""
