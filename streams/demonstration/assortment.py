"""What the simulated shop sells, and how its customers ask for it. Every brand is invented."""

from __future__ import annotations

from typing import Final, NamedTuple


class Line(NamedTuple):
    """One kind of thing, in as many versions as it has attributes; `price` is the cheapest version's."""

    noun: str
    attributes: tuple[str, str, str, str]
    price: float
    used_up: bool = False  # bought again and again


class Department(NamedTuple):
    """`wishes` are searches that name the occasion instead of a thing."""

    name: str
    brands: tuple[str, str]
    lines: tuple[Line, ...]
    wishes: tuple[str, ...]


DEPARTMENTS: Final = (
    Department(
        "Camping",
        ("Fernhollow", "Tarnwick"),
        (
            Line("Tent", ("Two-Person", "Family Dome", "Ultralight Trekking", "Four-Season"), 119.0),
            Line("Sleeping Bag", ("Down", "Summer", "Three-Season Mummy", "Double"), 59.0),
            Line("Sleeping Mat", ("Self-Inflating", "Folding Foam", "Insulated Air", "Double"), 29.0),
            Line("Camping Stove", ("Gas", "Wood-Burning", "Two-Burner", "Titanium"), 34.0),
            Line("Hiking Backpack", ("45 l", "65 l Trekking", "Waterproof", "Lightweight"), 79.0),
            Line("Headlamp", ("Rechargeable", "Waterproof", "Compact", "Long-Beam"), 19.0),
            Line("Camping Lantern", ("LED", "Folding", "Solar", "Hanging"), 17.0),
            Line("Camping Chair", ("Folding", "Low", "Reclining", "Ultralight"), 32.0),
            Line("Camping Cookware Set", ("Nesting", "Titanium", "Four-Person", "Non-Stick"), 39.0),
            Line("Water Filter for Hiking", ("Squeeze", "Pump", "Gravity", "Straw"), 24.0),
        ),
        ("camping gear", "weekend camping trip", "what to take camping", "hiking and camping equipment"),
    ),
    Department(
        "Baking",
        ("Oatmere", "Crumbwell"),
        (
            Line("Bread Baking Tin", ("Non-Stick", "Cast Iron", "Long", "Lidded"), 14.0),
            Line("Cake Tin", ("Springform", "Loose-Base", "Square", "Heart-Shaped"), 12.0),
            Line("Muffin Tray", ("Twelve-Cup", "Silicone", "Mini", "Non-Stick"), 11.0),
            Line("Sourdough Proofing Basket", ("Oval", "Round", "Rattan", "Lined"), 16.0),
            Line("Baking Stand Mixer", ("Five-Litre", "Compact", "Retro", "Heavy-Duty"), 149.0),
            Line("Rolling Pin", ("Beech", "Marble", "Adjustable", "French"), 13.0),
            Line("Baking Flour", ("Strong White", "Wholemeal Spelt", "Rye", "Fine Cake"), 4.0, used_up=True),
            Line("Piping Bag Set", ("Icing", "Reusable", "Russian Tip", "Beginner's"), 9.0),
            Line("Baking Yeast", ("Instant Dry", "Organic", "Fresh-Pack", "Gluten-Free"), 3.0, used_up=True),
            Line("Cookie Cutter Set", ("Christmas", "Alphabet", "Animal", "Linzer"), 8.0),
        ),
        ("baking for beginners", "bake bread at home", "birthday cake baking", "everything for baking"),
    ),
    Department(
        "Running",
        ("Stridemoor", "Pacelle"),
        (
            Line("Running Shoes", ("Cushioned", "Trail", "Racing", "Stability"), 89.0),
            Line("Running Shorts", ("Split", "Two-in-One", "Lightweight", "Pocketed"), 29.0),
            Line("Running Tights", ("Thermal", "Compression", "Reflective", "Cropped"), 39.0),
            Line("Running Jacket", ("Windproof", "Waterproof", "Reflective", "Packable"), 69.0),
            Line("Running Socks", ("Blister-Free", "Merino", "Ankle", "Compression"), 11.0, used_up=True),
            Line("Running Vest", ("Hydration", "High-Visibility", "Breathable", "Race-Day"), 34.0),
            Line("Running Watch", ("GPS", "Heart-Rate", "Ultra", "Lightweight"), 139.0),
            Line("Energy Gel for Runners", ("Citrus", "Caffeine", "Berry", "Salted Caramel"), 2.0, used_up=True),
            Line("Running Belt", ("Slim", "Bottle", "Race-Number", "Stretch"), 19.0),
            Line("Running Cap", ("Sun", "Mesh", "Winter", "Folding"), 16.0),
        ),
        ("marathon training", "start running", "running kit for winter", "half marathon running gear"),
    ),
    Department(
        "Gardening",
        ("Loamley", "Greenbarrow"),
        (
            Line("Garden Spade", ("Stainless Steel", "Border", "Long-Handled", "Children's"), 24.0),
            Line("Pruning Shears", ("Bypass", "Anvil", "Ratchet", "Left-Handed"), 18.0),
            Line("Vegetable Seeds", ("Tomato", "Courgette", "Runner Bean", "Carrot"), 3.0, used_up=True),
            Line("Flower Seeds", ("Sunflower", "Wildflower", "Sweet Pea", "Poppy"), 3.0),
            Line("Potting Compost", ("Peat-Free", "Seedling", "Tomato", "Ericaceous"), 8.0, used_up=True),
            Line("Garden Hose", ("Expandable", "Reinforced 20 m", "Drip", "Flat"), 27.0),
            Line("Raised Garden Bed", ("Cedar", "Galvanised", "Stackable", "Corner"), 64.0),
            Line("Gardening Gloves", ("Thornproof", "Bamboo", "Waterproof", "Long-Cuff"), 9.0),
            Line("Watering Can", ("Long-Reach", "Galvanised", "Indoor", "Ten-Litre"), 19.0),
            Line("Plant Fertiliser", ("Tomato", "Rose", "Organic", "Lawn"), 7.0, used_up=True),
        ),
        ("spring gardening", "grow vegetables in the garden", "garden tools", "planting a flower garden"),
    ),
    Department(
        "Photography",
        ("Lumenar", "Apertia"),
        (
            Line("Mirrorless Camera", ("Full-Frame", "Compact", "Entry-Level", "Weather-Sealed"), 649.0),
            Line("Camera Lens", ("Portrait 85 mm", "Wide-Angle", "Macro", "Telephoto"), 249.0),
            Line("Camera Tripod", ("Carbon", "Travel", "Tabletop", "Video"), 59.0),
            Line("Camera Bag", ("Sling", "Backpack", "Hard-Shell", "Canvas"), 45.0),
            Line("Camera Flash", ("Speedlight", "Ring", "Pocket", "Wireless"), 79.0),
            Line("Camera Lens Filter", ("Polarising", "Neutral Density", "UV", "Soft-Focus"), 27.0),
            Line("Camera Memory Card", ("128 GB", "High-Speed", "64 GB", "Rugged"), 22.0, used_up=True),
            Line("Camera Battery", ("Spare", "Twin-Pack", "Fast-Charge", "High-Capacity"), 26.0, used_up=True),
            Line("Camera Strap", ("Leather", "Quick-Release", "Wrist", "Padded"), 21.0),
            Line("Photo Studio Light", ("Softbox", "LED Panel", "Continuous", "Clip-On"), 69.0),
        ),
        ("photography for beginners", "portrait photography", "photo equipment", "landscape photography camera"),
    ),
    Department(
        "Coffee",
        ("Brewmont", "Rostello"),
        (
            Line("Espresso Machine", ("Dual-Boiler", "Compact", "Manual Lever", "Automatic"), 189.0),
            Line("Coffee Grinder", ("Burr", "Hand", "Stepless", "Quiet"), 49.0),
            Line("Coffee Beans", ("Ethiopian", "Dark Roast", "Decaf", "Colombian"), 11.0, used_up=True),
            Line("Pour-Over Coffee Dripper", ("Ceramic", "Glass", "Steel", "Travel"), 18.0),
            Line("French Press Coffee Maker", ("Double-Wall", "Glass", "One-Cup", "Copper"), 27.0),
            Line("Coffee Filter Papers", ("Cone", "Unbleached", "Basket", "Hemp"), 5.0, used_up=True),
            Line("Gooseneck Coffee Kettle", ("Electric", "Stovetop", "Temperature-Controlled", "Matte Black"), 44.0),
            Line("Coffee Milk Frother", ("Handheld", "Induction", "Steam", "Manual"), 23.0),
            Line("Coffee Scale", ("Timer", "Slim", "Rechargeable", "Pocket"), 29.0),
            Line("Coffee Cup Set", ("Espresso", "Stoneware", "Cappuccino", "Travel"), 19.0),
        ),
        ("coffee at home", "barista coffee equipment", "gift for a coffee lover", "make better espresso coffee"),
    ),
    Department(
        "Cycling",
        ("Velomark", "Spokehurst"),
        (
            Line("Bicycle Helmet", ("Road", "Commuter", "Mountain", "Aero"), 49.0),
            Line("Bike Light Set", ("USB", "Front and Rear", "Bright", "Clip-On"), 24.0),
            Line("Bike Lock", ("Folding", "U-Shaped", "Chain", "Cable"), 34.0),
            Line("Bicycle Tyre", ("Gravel", "Puncture-Proof", "Road", "Winter"), 29.0, used_up=True),
            Line("Cycling Jersey", ("Long-Sleeve", "Summer", "Merino", "Club"), 45.0),
            Line("Bib Cycling Shorts", ("Padded", "Endurance", "Thermal", "Race"), 59.0),
            Line("Bicycle Pump", ("Floor", "Mini", "Electric", "CO2"), 21.0),
            Line("Bicycle Saddle", ("Gel", "Leather", "Carbon", "Touring"), 39.0),
            Line("Bike Pannier Bag", ("Waterproof", "Rear", "Commuter", "Roll-Top"), 54.0),
            Line("Bicycle Chain Oil", ("Wet", "Dry", "Ceramic", "All-Weather"), 7.0, used_up=True),
        ),
        ("cycling to work", "bike accessories", "road cycling kit", "bicycle touring equipment"),
    ),
    Department(
        "Painting",
        ("Ochrelle", "Vermillot"),
        (
            Line("Watercolour Paint Set", ("Travel", "36-Colour", "Artist's", "Beginner's"), 22.0),
            Line("Acrylic Paint Set", ("Heavy-Body", "24-Colour", "Metallic", "Student"), 19.0),
            Line("Oil Paint Set", ("Artist's", "Water-Mixable", "12-Colour", "Landscape"), 34.0),
            Line("Paint Brush Set", ("Sable", "Synthetic", "Detail", "Flat"), 14.0),
            Line("Painting Canvas", ("Stretched", "Linen", "Panel", "Large"), 12.0, used_up=True),
            Line("Painting Easel", ("Tabletop", "Beech", "Field", "Studio"), 39.0),
            Line("Watercolour Paper Pad", ("Cold-Pressed", "Hot-Pressed", "A3", "Postcard"), 13.0, used_up=True),
            Line("Artist's Palette", ("Wooden", "Porcelain", "Airtight", "Disposable"), 9.0),
            Line("Drawing Pencil Set", ("Graphite", "Charcoal", "Coloured", "Sketching"), 11.0),
            Line("Painting Varnish", ("Gloss", "Matt", "Spray", "Satin"), 10.0),
        ),
        ("learn to paint", "painting supplies", "art materials for painting", "watercolour painting for beginners"),
    ),
    Department(
        "Aquarium",
        ("Reefling", "Bluegill & Co"),
        (
            Line("Aquarium Tank", ("60-Litre", "Nano", "Corner", "Rimless"), 69.0),
            Line("Aquarium Filter", ("External", "Sponge", "Internal", "Hang-On"), 29.0),
            Line("Aquarium Heater", ("Adjustable", "100 W", "Shatterproof", "Digital"), 21.0),
            Line("Aquarium Light", ("Plant-Growth", "LED", "Marine", "Clip-On"), 34.0),
            Line("Tropical Fish Food", ("Flake", "Pellet", "Frozen-Style", "Colour-Boost"), 6.0, used_up=True),
            Line("Aquarium Gravel", ("Natural", "Black", "Planted-Tank", "White"), 9.0),
            Line("Live Aquarium Plants", ("Java Fern", "Anubias", "Foreground", "Floating"), 7.0, used_up=True),
            Line("Aquarium Water Test Kit", ("Freshwater", "Nitrate", "Marine", "Strip"), 14.0),
            Line("Aquarium Air Pump", ("Silent", "Twin-Outlet", "Battery", "Mini"), 17.0),
            Line("Fish Tank Decoration", ("Driftwood", "Castle", "Slate Cave", "Shipwreck"), 12.0),
        ),
        ("first aquarium", "set up a fish tank", "aquarium supplies", "tropical fish for beginners"),
    ),
    Department(
        "Guitars",
        ("Fretwell", "Sunburst & Daughters"),
        (
            Line("Acoustic Guitar", ("Spruce-Top", "Parlour", "Twelve-String", "Beginner's"), 149.0),
            Line("Electric Guitar", ("Semi-Hollow", "Single-Cut", "Left-Handed", "Starter"), 219.0),
            Line("Guitar Strings", ("Phosphor Bronze", "Light-Gauge", "Nylon", "Coated"), 8.0, used_up=True),
            Line("Guitar Amplifier", ("Practice", "Valve", "Modelling", "Busking"), 99.0),
            Line("Guitar Effects Pedal", ("Delay", "Overdrive", "Reverb", "Looper"), 69.0),
            Line("Guitar Capo", ("Spring", "Rolling", "Partial", "Screw"), 12.0),
            Line("Guitar Picks", ("Heavy", "Assorted", "Thumb", "Nylon"), 5.0, used_up=True),
            Line("Guitar Tuner", ("Clip-On", "Pedal", "Chromatic", "Rechargeable"), 15.0),
            Line("Guitar Stand", ("Folding", "Wall-Mounted", "Triple", "Wooden"), 18.0),
            Line("Guitar Case", ("Hard", "Padded Gig", "Travel", "Waterproof"), 49.0),
        ),
        ("learn guitar", "guitar accessories", "play electric guitar at home", "guitar for beginners"),
    ),
)

OFF_TOPIC: Final = (
    "where is my order",
    "gift card",
    "return policy",
    "opening hours",
    "free shipping",
    "size chart",
    "asdf",
    "newsletter discount",
    "christmas gift for dad",
    "delivery saturday?",
)
"""Searches that say nothing about a taste."""

CAMPAIGNS: Final = ("SPRING", "VIP", "WELCOME", "FLASH", "SAVE")
"""What campaign codes begin with; shoppers paste them into the search box."""
