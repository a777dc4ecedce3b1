"""What the demo's companies, towns and people are called. All made up; no word list of real ones was used.

Telephone numbers come from the ranges that Ofcom keeps free for drama (01632 960000 to 960999, 07700 900000 to
900999). Post codes begin with Q and X, which no British one does. Mail goes to example.org and example.com (RFC 2606).
"""

from __future__ import annotations

COMPANY_FIRST = (
    "Alder", "Amber", "Anvil", "Barley", "Beacon", "Birch", "Bramble", "Brook", "Cedar", "Chalk", "Clover", "Copper",
    "Crane", "Dale", "Elm", "Ferry", "Finch", "Flint", "Forge", "Garnet", "Granite", "Harbour", "Hazel", "Heron",
    "Holly", "Juniper", "Kestrel", "Larch", "Linden", "Lock", "Maple", "Meadow", "Moss", "Otter", "Pebble", "Plover",
    "Quarry", "Reed", "Rowan", "Saddle", "Slate", "Sorrel", "Thistle", "Tide", "Vale", "Walnut", "Weir", "Willow",
)  # fmt: skip
COMPANY_SECOND = (
    "Bakery", "Brewery", "Care Homes", "Castings", "Cold Stores", "Dairy", "Dental", "Fabrics", "Foods", "Garages",
    "Glass", "Gym", "Hotel", "Laundry", "Library", "Logistics", "Mills", "Nurseries", "Packaging", "Paper", "Print",
    "School", "Surgery", "Textiles", "Timber", "Tools", "Veterinary", "Winery",
)  # fmt: skip
STREETS = (
    "Anvil Street", "Barn Lane", "Canal Row", "Chapel Walk", "Dyer's Yard", "Ferry Road", "Foundry Lane",
    "Gasworks Way", "Kiln Street", "Lock Side", "Market Row", "Mill Race", "Orchard Way", "Quarry Road", "Ropewalk",
    "Sheep Street", "Station Approach", "Tannery Lane", "Weir Lane", "Wharf Road",
)  # fmt: skip
TOWNS = (
    ("Aldermoor", "QX1"), ("Brackenwell", "QX2"), ("Coldharbour Bay", "QX3"), ("Dunmarsh", "QX4"), ("Eastlock", "QX5"),
    ("Fernhithe", "QX6"), ("Greywick", "QX7"), ("Hollinford", "QX8"),
)  # fmt: skip
GIVEN = (
    "Ada", "Amir", "Bea", "Carl", "Dina", "Elias", "Fay", "Gus", "Hana", "Ivo", "Jude", "Kira", "Leo", "Mina", "Nils",
    "Odile", "Pia", "Ravi", "Sena", "Theo", "Una", "Vik", "Wren", "Yara", "Zeno",
)  # fmt: skip
FAMILY = (
    "Ashgrove", "Barrowby", "Coldwell", "Dunmere", "Elverton", "Farrowby", "Glenhurst", "Harlowe", "Inglemoor",
    "Jessamy", "Kelloway", "Larkham", "Merrowdale", "Northwold", "Oakhanger", "Pendlebrook", "Quillan", "Rushmere",
    "Stanwick", "Thornbeck", "Underhay", "Vexley", "Wintermere", "Yardlow",
)  # fmt: skip
ROLES = ("Facilities", "Office", "Purchasing", "Production", "Front desk", "Maintenance")
SITE_NAMES = ("Main building", "Plant 2", "Warehouse", "Branch North", "Branch South", "Annexe", "Workshop")
ACCESS = ("Bell at the side door", "Key box by the gate", "Ask at reception", "Yard closes at five", "Dog in the yard")
MAKERS = (("Thermar", "TH"), ("Nordkuhl", "NK"), ("Ventoria", "VE"), ("Hydrex", "HY"), ("Calorix", "CX"))
EQUIPMENT = (
    "Boiler", "Chiller", "Air handling unit", "Circulation pump", "Heat pump", "Water softener", "Compressor",
    "Cold room", "Extractor", "Booster set",
)  # fmt: skip
PARTS = (
    ("PU", "Circulation pump"), ("VA", "Three-way valve"), ("FI", "Filter cartridge"), ("SE", "Temperature sensor"),
    ("GA", "Gasket set"), ("FA", "Fan motor"), ("BE", "Drive belt"), ("CO", "Control board"), ("TH", "Thermostat"),
    ("IG", "Ignition electrode"), ("EX", "Expansion vessel"), ("SA", "Safety valve"),
)  # fmt: skip
SIZES = ("S", "M", "L", "XL", "15 mm", "22 mm", "28 mm")
TITLES = (
    ("repair", "No heating"), ("repair", "Leak at the pump"), ("repair", "Unit trips after ten minutes"),
    ("maintenance", "Yearly service"), ("maintenance", "Filter change"), ("inspection", "Safety inspection"),
    ("installation", "New control panel"),
)  # fmt: skip
DONE = (
    "Gasket changed",
    "Pump replaced and vented",
    "Filters changed",
    "Control reset, watched for an hour",
    "Serviced",
)
TEAMS = ("North", "South", "Harbour")
