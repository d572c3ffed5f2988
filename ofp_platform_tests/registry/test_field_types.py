"""Each declared type of a payload field has a decoder's type and a zero of that type."""

import msgspec
import pytest

from ofp_platform.registry.field_types import DECODED_TYPES, NOT_DECODED, ZEROS
from ofp_platform.registry.models import FieldType
from ofp_platform.vocabulary.canonical import MAX_INTEGER

_GOOD = {FieldType.INTEGER: b"-9007199254740991", FieldType.STRING: b'"a"', FieldType.BOOLEAN: b"true"}


@pytest.mark.parametrize("kind", FieldType)
def test_a_type_takes_its_own_values_and_no_others(kind: FieldType) -> None:
    decode = msgspec.json.Decoder(DECODED_TYPES[kind]).decode
    assert type(decode(_GOOD[kind])) is type(ZEROS[kind])
    for other, text in _GOOD.items():
        if other is not kind:
            with pytest.raises(NOT_DECODED):
                decode(text)


def test_an_integer_is_one_that_canonical_json_can_hold() -> None:
    with pytest.raises(NOT_DECODED):
        msgspec.json.Decoder(DECODED_TYPES[FieldType.INTEGER]).decode(str(MAX_INTEGER + 1))
