"""What scanners read, against the examples that GS1 publishes in the Tag Data Standard and the Digital Link standard."""

import pytest

from oms.domain.codes import CodeUnreadable, check_digit, is_gtin, read_code


@pytest.mark.parametrize(
    ("text", "gtin", "serial"),
    [
        ("3074257BF7194E4000001A85", "80614141123458", "6789"),
        ("urn:epc:id:sgtin:0614141.812345.6789", "80614141123458", "6789"),
        ("urn:epc:tag:sgtin-96:3.0614141.812345.6789", "80614141123458", "6789"),
        ("3674257BF6B7A659B2C2BF100000000000000000000000000000", "70614141123451", "32a/b"),
        ("urn:epc:tag:sgtin-198:3.0614141.712345.32a%2Fb", "70614141123451", "32a/b"),
        ("https://id.gs1.org/01/09506000134352/21/12345", "09506000134352", "12345"),
        ("https://example.com/shop/01/09506000134352", "09506000134352", None),
        ("(01)09506000134352(17)261231(21)ab", "09506000134352", "ab"),
        ("]d2010950600013435217261231" + "10LOT\x1d21ab", "09506000134352", "ab"),
        ("036000291452", "00036000291452", None),
        ("40170725", "00000040170725", None),
    ],
)
def test_a_code_names_its_gtin_and_its_piece(text: str, gtin: str, serial: str | None) -> None:
    code = read_code(text)
    assert gtin in code.candidates
    assert code.serial == (f"{gtin}.{serial}" if serial else None)


def test_the_same_item_is_found_whatever_length_its_barcode_was_kept_in() -> None:
    assert set(read_code("036000291452").candidates) >= {"036000291452", "0036000291452", "00036000291452"}
    assert "036000291452" in read_code("(01)00036000291452").candidates


def test_a_case_is_not_a_piece_of_what_is_in_it() -> None:
    assert set(read_code("(01)10036000291459").candidates) == {"(01)10036000291459", "10036000291459"}


def test_what_is_no_number_is_taken_as_it_is() -> None:
    assert read_code(" SKU-1 ").candidates == ("SKU-1",)


def test_check_digits() -> None:
    assert check_digit("629104150021") == "3"
    assert is_gtin("6291041500213") and not is_gtin("6291041500214")


@pytest.mark.parametrize(
    "text",
    ["", "x" * 501, "urn:epc:id:sscc:0614141.1234567890", "urn:epc:id:sgtin:061414.812345.6789",
     "307C257BF7194E4000001A85", "3674257BF7194E4000001A85", "36" + "0" * 50],
)  # fmt: skip
def test_a_tag_that_is_no_item_says_why(text: str) -> None:
    with pytest.raises(CodeUnreadable):
        read_code(text)
