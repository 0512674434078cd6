"""What a scanner reads: barcodes, GS1 element strings, digital links, and EPC codes of RFID tags. Pure.

    read_code("3074257BF7194E4000001A85")    # → Code(candidates=('80614141123458', …), serial='6789')

SGTIN-96 and SGTIN-198 by the EPC Tag Data Standard (https://ref.gs1.org/standards/tds/), as bits in hexadecimal, as tag
URI or as pure identity; a GTIN-14 whose indicator is not 0 is a case, and no piece of what is in it.
"""

import re
from urllib.parse import unquote

import msgspec

CODE_MAX = 500
_PARTITIONS = {0: (40, 12, 4, 1), 1: (37, 11, 7, 2), 2: (34, 10, 10, 3), 3: (30, 9, 14, 4), 4: (27, 8, 17, 5),
               5: (24, 7, 20, 6), 6: (20, 6, 24, 7)}  # fmt: skip
"""Partition → bits and digits of the company prefix, bits and digits of the item reference with its indicator."""
_URI = re.compile(r"urn:epc:id:sgtin:(?P<c>\d{6,12})\.(?P<i>\d{1,7})\.(?P<s>.+)", re.A)
_TAG_URI = re.compile(r"urn:epc:tag:sgtin-(?:96|198):\d\.(?P<c>\d{6,12})\.(?P<i>\d{1,7})\.(?P<s>.+)", re.A)
_LINK = re.compile(r"https?://[^/]+(?:/[^/]+)*?/(?:01|gtin)/(?P<g>\d{8,14})(?:/.*?21/(?P<s>[^/?#]+))?", re.A)
_ELEMENTS = re.compile(r"\(01\)(?P<g>\d{14})(?:.*?\(21\)(?P<s>[^(]+))?", re.A)
_SYMBOL = re.compile(r"(?:\][A-Za-z]\d)?\x1d?01(?P<g>\d{14})(?P<rest>.*)", re.A | re.S)
_FIXED = {"11": 6, "12": 6, "13": 6, "15": 6, "16": 6, "17": 6, "20": 2}
"""Application identifiers of a fixed length that may stand before a serial number."""


class Code(msgspec.Struct, frozen=True):
    """A code as it was read: what a barcode may be kept as, and the piece's own number where it has one."""

    text: str
    candidates: tuple[str, ...]
    serial: str | None = None


class CodeUnreadable(ValueError):
    """A tag whose bits are no SGTIN; the text says why."""


def read_code(text: str) -> Code:
    """What was scanned. Raises CodeUnreadable where it says that it is an EPC and is none that names a GTIN."""
    text = text.strip()
    if not text or len(text) > CODE_MAX:
        raise CodeUnreadable(f"a code has 1 to {CODE_MAX} characters")
    if text.lower().startswith("urn:epc:"):
        found = _TAG_URI.fullmatch(text) or _URI.fullmatch(text)
        if found is None or len(found["c"]) + len(found["i"]) != 13:
            raise CodeUnreadable(f"{text[:80]} is no SGTIN: only tags that name a GTIN are items")
        return _of_epc(text, found["c"], found["i"], unquote(found["s"]))
    if re.fullmatch(r"[0-9A-Fa-f]{24}(?:[0-9A-Fa-f]{28})?", text) and text[:2] in ("30", "36"):
        return _of_bits(text)
    for pattern in (_LINK, _ELEMENTS):
        found = pattern.match(text)
        if found:
            serial = found["s"]
            return _of_gtin(text, found["g"], unquote(serial) if serial else None)
    found = _SYMBOL.fullmatch(text)
    if found and is_gtin(found["g"]):
        return _of_gtin(text, found["g"], _serial_of(found["rest"]))
    if text.isascii() and text.isdigit() and len(text) in (8, 12, 13, 14):
        return _of_gtin(text, text, None)
    return Code(text, (text,))


def is_gtin(digits: str) -> bool:
    """Whether the last of these digits is the check digit of the others."""
    return digits.isascii() and digits.isdigit() and check_digit(digits[:-1]) == digits[-1]


def check_digit(digits: str) -> str:
    """The check digit after these digits, by modulo 10 with weights 3 and 1 from the right."""
    total = sum(int(d) * (3 if place % 2 == 0 else 1) for place, d in enumerate(reversed(digits)))
    return str(-total % 10)


def _of_gtin(text: str, gtin: str, serial: str | None) -> Code:
    """The same number as 14, 13, 12 and 8 digits, as far as what is left out is zeros."""
    whole = gtin.zfill(14)
    shorter = [whole[14 - n :] for n in (14, 13, 12, 8) if set(whole[: 14 - n]) <= {"0"}]
    own = f"{whole}.{serial}" if serial else None
    return Code(text, tuple(dict.fromkeys([text, gtin, *shorter])), own)


def _of_epc(text: str, company: str, item: str, serial: str) -> Code:
    digits = item[0] + company + item[1:]
    return _of_gtin(text, digits + check_digit(digits), serial)


def _of_bits(text: str) -> Code:
    bits = int(text, 16)
    width = len(text) * 4

    def take(start: int, length: int) -> int:
        return bits >> (width - start - length) & ((1 << length) - 1)

    is_long = take(0, 8) == 0x36
    if is_long != (width == 208):
        raise CodeUnreadable(f"{text} has {width} bits, which its header does not")
    partition = take(11, 3)
    if partition not in _PARTITIONS:
        raise CodeUnreadable(f"{text} has the partition {partition}, which there is not")
    c_bits, c_digits, i_bits, i_digits = _PARTITIONS[partition]
    company, item = take(14, c_bits), take(14 + c_bits, i_bits)
    if company >= 10**c_digits or item >= 10**i_digits:
        raise CodeUnreadable(f"{text} has a number that is longer than its partition says")
    serial = str(take(58, 38))
    if is_long:
        letters = [take(58 + 7 * place, 7) for place in range(20)]
        serial = "".join(map(chr, letters)).rstrip("\0")
        if not serial or "\0" in serial:
            raise CodeUnreadable(f"{text} has no serial number")
    return _of_epc(text, str(company).zfill(c_digits), str(item).zfill(i_digits), serial)


def _serial_of(rest: str) -> str | None:
    """The serial number (21) among the elements after a GTIN, in the order of the symbol."""
    while rest:
        rest = rest.lstrip("\x1d")
        identifier = rest[:2]
        if identifier in _FIXED:
            rest = rest[2 + _FIXED[identifier] :]
            continue
        value, _, following = rest[2:].partition("\x1d")
        if identifier == "21":
            return value or None
        rest = following
    return None
