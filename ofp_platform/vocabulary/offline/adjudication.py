"""Adjudications: an operator's decision which of several contents of one event id makes the rows of datasets."""

from __future__ import annotations

from ofp_platform.vocabulary.model import Identifier, Model
from ofp_platform.vocabulary.position import Offset


class Adjudication(Model):
    """As a plan pins it: the content of the record at that place counts, of all with that id of that class."""

    event_class: Identifier
    event_id: Identifier
    partition_id: Identifier
    offset: Offset

    @property
    def name(self) -> tuple[str, str]:
        """Class and id."""
        return self.event_class, self.event_id
