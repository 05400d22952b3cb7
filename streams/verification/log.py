"""One partition of a topic of users' events, read into columns: some sixty bytes an event."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from encoders.text import clean, normalise
from streams.batches import Weights
from streams.events import InvalidEvent, Search, check_key, decode_purchase, decode_search
from streams.verification.recomputation import Contribution, Event

_NONE: Final = -1


class EventLog:
    """The understood events of one partition of searches or purchases, of the users who are wanted."""

    def __init__(
        self,
        *,
        searches: bool,
        weights: Weights,
        user_point: Callable[[str], str],
        last_point: str,
    ) -> None:
        """`user_point` gives a user's point id; users beyond `last_point` are left out."""
        self._searches = searches
        self._weights = weights
        self._user_point = user_point
        self._last_point = last_point
        self._codes: dict[bytes, int] = {}  # of users by key
        self.points: list[str] = []  # of users, by code
        self.names: list[str] = []  # of users, by code
        self._text_codes: dict[str, int] = {}
        self._texts: list[str] = []  # keys and names of vectors, by code
        self._user, self._key, self._vector, self._click = array("i"), array("i"), array("i"), array("i")
        self._offset, self._ts = array("q"), array("q")
        self._order, self._event_id = array("Q"), array("Q")
        self._confidence, self._noise = array("d"), array("i")
        self._bounds: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self.not_understood = 0

    def __len__(self) -> int:
        return len(self._user)

    def take(self, message: Message) -> None:
        key, value, offset = message.key(), message.value(), message.offset()
        _, timestamp = message.timestamp()
        assert isinstance(key, bytes | None)
        assert isinstance(value, bytes | None)
        assert offset is not None
        user = self._codes.get(key or b"")
        if user == _NONE:
            return
        try:
            event = (decode_search if self._searches else decode_purchase)(value, timestamp)
            check_key(key, event)
        except InvalidEvent:
            self.not_understood += 1
            return
        click = noise = _NONE
        confidence = 1.0
        if isinstance(event, Search):
            query = normalise(event.query)
            confidence, reason = self._weights.assessed(event)
            if reason is not None:
                noise = self._text(reason)
            text = vector = self._text("q" + query) if query else _NONE
            order = offset + 1
            if event.clicked_product_id:
                click = self._text("p" + event.clicked_product_id)
        else:
            text = vector = self._text("p" + event.product_id)
            if event.title and clean(event.title):
                vector = self._text("t" + event.title)
            order = _hash(event.order_id or str(event.ts))
        if user is None:
            user = self._add_user(key or b"", event.user_id)
        if user == _NONE:
            return
        self._user.append(user)
        self._key.append(text)
        self._vector.append(vector)
        self._click.append(click)
        self._offset.append(offset)
        self._ts.append(event.ts)
        self._order.append(order)
        self._confidence.append(confidence)
        self._noise.append(noise)
        self._event_id.append(_hash(event.event_id) if event.event_id else 0)
        self._bounds = None

    def offsets_of(self, user: int) -> NDArray[np.int64]:
        """Of the user (a code), rising."""
        return np.frombuffer(self._offset, np.int64)[self._rows_of(user)]

    def events_of(self, user: int, up_to: int) -> list[Event]:
        """The user's events at offsets <= `up_to`, in their order."""
        return [self._event(row) for row in self._rows_of(user).tolist() if self._offset[row] <= up_to]

    def text(self, code: int) -> str:
        return self._texts[code]

    def _event(self, row: int) -> Event:
        weights = self._weights
        contributions: tuple[Contribution, ...] = ()
        confidence = self._confidence[row]
        if self._key[row] != _NONE and confidence > 0.0:
            weight = weights.search * confidence if self._searches else weights.purchase
            contributions = (Contribution(self._texts[self._key[row]], weight, self._texts[self._vector[row]]),)
        if self._click[row] != _NONE:
            clicked = self._texts[self._click[row]]
            contributions += (Contribution(clicked, weights.click, clicked),)
        noise = "" if self._noise[row] == _NONE else self._texts[self._noise[row]]
        return Event(self._offset[row], self._ts[row], self._order[row], self._event_id[row], contributions, noise)

    def _rows_of(self, user: int) -> NDArray[np.int64]:
        if self._bounds is None:
            users = np.array(self._user, np.int32)
            order = np.argsort(users, kind="stable")
            self._bounds = order, np.searchsorted(users[order], np.arange(len(self.points) + 1))
        order, starts = self._bounds
        rows: NDArray[np.int64] = order[starts[user] : starts[user + 1]]
        return rows

    def _add_user(self, key: bytes, name: str) -> int:
        point = self._user_point(name)
        if point > self._last_point:
            self._codes[key] = _NONE
            return _NONE
        self._codes[key] = len(self.points)
        self.points.append(point)
        self.names.append(name)
        return self._codes[key]

    def _text(self, text: str) -> int:
        code = self._text_codes.get(text)
        if code is None:
            code = self._text_codes[text] = len(self._texts)
            self._texts.append(text)
        return code


def _hash(text: str) -> int:
    """64 bits of BLAKE2b, never 0: what ledgers remember of event ids and orders."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1
