"""Units, currencies and countries: what converts into what, exactly.

Factors are fractions; nothing here is rounded. A unit whose factor is no finite decimal does not exist here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

# Dimension → unit → how many of the dimension's first unit it is. Factors are exact by definition (SI brochure;
# international yard and pound agreement of 1959 for inch, foot, mile, pound and ounce).
DIMENSIONS: Final[dict[str, dict[str, Fraction]]] = {
    "time": {
        "s": Fraction(1),
        "ms": Fraction(1, 1000),
        "us": Fraction(1, 1_000_000),
        "min": Fraction(60),
        "h": Fraction(3600),
        "day": Fraction(86400),
        "week": Fraction(604800),
    },
    "mass": {
        "kg": Fraction(1),
        "g": Fraction(1, 1000),
        "mg": Fraction(1, 1_000_000),
        "t": Fraction(1000),
        "lb": Fraction("0.45359237"),
        "oz": Fraction("0.028349523125"),
    },
    "length": {
        "m": Fraction(1),
        "mm": Fraction(1, 1000),
        "cm": Fraction(1, 100),
        "km": Fraction(1000),
        "in": Fraction("0.0254"),
        "ft": Fraction("0.3048"),
        "mi": Fraction("1609.344"),
    },
    "volume": {"l": Fraction(1), "ml": Fraction(1, 1000), "m3": Fraction(1000)},
    "energy": {"kWh": Fraction(1), "Wh": Fraction(1, 1000), "MWh": Fraction(1000)},
    "ratio": {"fraction": Fraction(1), "%": Fraction(1, 100), "bp": Fraction(1, 10_000)},
    "count": {"each": Fraction(1), "dozen": Fraction(12)},
}

UNIX_UNITS: Final = {"unix": 1, "unix_ms": 1000, "unix_us": 1_000_000}
"""Timestamps kept as a number since 1970 UTC: ticks a second."""

_CURRENCIES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE"
    " CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF"
    " GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR"
    " LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN"
    " PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS"
    " TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XAG XAU XBA XBB XBC XBD"
    " XCD XCG XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG"
)
CURRENCIES: Final = frozenset(_CURRENCIES.split())
"""ISO 4217 alphabetic codes (list one, 2025). It changes about once a year; a library would weigh more."""

_COUNTRIES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ"
    " CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM"
    " FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS"
    " IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML"
    " MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN"
    " PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG"
    " TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES: Final = frozenset(_COUNTRIES.split())
"""ISO 3166-1 alpha-2."""

CODE_LISTS: Final = {"ISO 4217": CURRENCIES, "ISO 3166-1": COUNTRIES}
"""`unit` of a text field that holds a code → the codes."""


_NUMBER = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)


def dimension(unit: str) -> str | None:
    return next((name for name, units in DIMENSIONS.items() if unit in units), None)


def factor(unit: str, canonical: str | None) -> Fraction | None:
    """How many `canonical` one `unit` is; None when they do not convert. `unit` may be a plain number ("0.01")."""
    if _NUMBER.fullmatch(unit):
        return Fraction(unit) or None
    kind = dimension(unit)
    if kind is None or canonical is None or dimension(canonical) != kind:
        return None
    found = DIMENSIONS[kind][unit] / DIMENSIONS[kind][canonical]
    return found if is_finite_decimal(found) else None


def is_finite_decimal(number: Fraction) -> bool:
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
