r"""Units after a number, with their dimension and size.

Known units of one dimension are converted (3 m are 300 cm), units of different dimensions differ,
and other words ("apples") are ignored.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Unit", "changes_value", "read_unit"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of dimensions, with its size in base units."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction


_TABLE = """
length       m meter metre=1 | cm centimeter centimetre=1/100 | mm millimeter millimetre=1/1000
length       km kilometer kilometre=1000 | dm=1/10 | um micrometer micron=1/1000000
length       nm nanometer=1/1000000000 | in inch=127/5000 | ft foot feet=381/1250
length       yd yard=1143/1250 | mi mile=201168/125
time         s sec second=1 | min minute=60 | h hr hour=3600 | day=86400 | week=604800
time         ms millisecond=1/1000 | ns nanosecond=1/1000000000
years        yr year=12 | month=1
mass         kg kilogram=1 | g gram=1/1000 | mg milligram=1/1000000 | ton tonne=1000
pounds       lb pound=16 | oz ounce=1
volume       L l liter litre=1000 | mL ml milliliter millilitre=1
gallons      gal gallon=16 | cup=1
dollars      $ dollar usd=100 | ¢ cent=1
euros        € euro eur=1
sterling     £ gbp=1
rupees       ₹ rs rupee inr=1
yen          ¥ yen=1
degrees      °=1
radians      rad radian=1
celsius      °C=1
fahrenheit   °F=1
kelvin       K kelvin=1
energy       J joule=1 | kJ kilojoule=1000 | cal calorie=523/125 | kcal=4184 | erg=1/10000000
electronvolt eV electronvolt=1 | keV=1000 | MeV=1000000 | GeV=1000000000
force        N newton=1 | kN=1000 | dyn dyne=1/100000
power        W watt=1 | kW kilowatt=1000 | MW megawatt=1000000
pressure     Pa pascal=1 | kPa=1000 | atm=101325
frequency    Hz hertz=1 | kHz=1000 | MHz=1000000 | GHz=1000000000
voltage      V volt=1
current      A amp ampere=1
resistance   ohm Ω=1
amount       mol mole=1
"""


def _known() -> dict[str, tuple[str, Fraction]]:
    found: dict[str, tuple[str, Fraction]] = {}
    for line in _TABLE.strip().splitlines():
        dimension, entries = line.split(maxsplit=1)
        for entry in entries.split(" | "):
            names, size = entry.split("=")
            found |= {name: (dimension, Fraction(size)) for name in names.split()}
    return found


_UNITS = _known()
_SPEEDS = {"mph": "mi/h", "kmph": "km/h", "kph": "km/h", "kmh": "km/h"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_FACTOR = re.compile(r"([^\W\d_]+|[$€£₹¥¢°Ω]C?F?)\.?(?:\^\{?(-?[1-9])\}?)?")
_POWER = r"\^\{?-?[1-9]\}?"
_BARE = re.compile(rf"(?:[a-zA-Z]{{2,}}|[mgsNJWVL])(?:[ /.\-]+[a-zA-Z]+|{_POWER})*\.?")
_SPOKEN = re.compile(rf"(?:\\text\{{[^{{}}\\]*\}}|{_POWER}|\\cdot|[ /\-°CF¢€£¥₹])+")
_CHANGE = re.compile(r"\b(?:and|or|least|most|than|not)\b")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")


def changes_value(text: str) -> bool:
    """Return whether words after a number make it another value ("or more", "and 10 cents")."""
    return _CHANGE.search(text) is not None


def read_unit(text: str) -> tuple[bool, Unit | None]:
    r"""Return whether a normalized text after a number is a unit or a noun, and the known unit."""
    if text == r"^\circ":
        return True, _unit("°")
    text = text.replace(r"^\circ", "°")
    plain = " ".join(re.sub(r"\\text|\\cdot|[{}]", " ", text).split()).replace(" ^", "^")
    plain = plain.replace("^ ", "^")
    if changes_value(plain):
        return False, None
    unit = _unit(plain)
    spoken = _SPOKEN.fullmatch(text) is not None and (unit is not None or "\\text" in text)
    return spoken or _is_bare(plain, unit), unit


def _is_bare(text: str, unit: Unit | None) -> bool:
    """Return whether words without a text command cannot be a product of variables."""
    if not _BARE.fullmatch(text):
        return False
    words = re.findall(r"[a-zA-Z]+", text)
    return unit is not None or all(len(each) > 2 and _VOWEL.search(each) for each in words)


def _unit(text: str) -> Unit | None:
    text = _SPEEDS.get(text.lower(), text).replace(" per ", "/")
    powers: dict[str, int] = {}
    size = Fraction(1)
    sign, pending = 1, 1
    for word in re.findall(r"/|[^ /*\-^]+(?:\^\{?-?[1-9]\}?)?", text):
        if word == "/":
            sign = -1
        elif word.lower() in _POWERS:
            pending = _POWERS[word.lower()]
        elif (factor := _FACTOR.fullmatch(word)) and (entry := _entry(factor[1])):
            power = sign * pending * int(factor[2] or 1)
            powers[entry[0]] = powers.get(entry[0], 0) + power
            size *= entry[1] ** power
            pending = 1
        else:
            return None
    return Unit(tuple(sorted(powers.items())), size) if powers else None


def _entry(name: str) -> tuple[str, Fraction] | None:
    for each in (name, name.lower(), name.lower().removesuffix("s"), name.lower()[:-2]):
        if each in _UNITS and (len(each) > 1 or each == name):
            return _UNITS[each]
    return None
