"""The keys and values of a batch of fixed size, at fixed addresses: what a captured decoding step reads and writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer


class Place:
    """Which part of a cache of `rows` rows and `columns` columns a forward works on: the layers share one."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns, self.device = rows, columns, device
        self.chosen = slice(None)
        """Rows that the forward has."""
        self.visible = 0
        """Of so many first columns it sees something; its mask says what."""
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        """The column of the first of its tokens."""
        self.target = self.cursor
        """The columns of all of its tokens."""


class FixedLayer(StaticLayer):
    """One layer's keys and values.

    Unlike transformers' own it can be filled some rows at a time, shows no more columns than asked for, and counts
    nothing: the place is moved on once for all layers. A layer with sliding attention keeps the tokens outside its
    window, too: the mask leaves them out, and no branch depends on how full it is.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(max_cache_len=place.columns)
        self.place = place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = attended_dtype(key_states), key_states.device
        shape = self.place.rows, key_states.shape[1], self.place.columns
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1], dtype=self.dtype)
        self.values = value_states.new_zeros(*shape, value_states.shape[-1], dtype=self.dtype)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.place
        assert self.keys is not None
        assert self.values is not None
        keys, values = self.keys[place.chosen], self.values[place.chosen]
        keys.index_copy_(2, place.target, key_states.to(self.dtype))
        values.index_copy_(2, place.target, value_states.to(self.dtype))
        return keys[:, :, : place.visible], values[:, :, : place.visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.visible, 0

    def get_seq_length(self) -> Tensor:  # type: ignore[override]  # as StaticLayer's own
        return self.place.cursor


def attended_dtype(keys: Tensor) -> torch.dtype:
    """In which dtype attention reads keys: under autocast, norms after the projection leave them in float32."""
    kind = keys.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else keys.dtype


def fixed_cache(place: Place, layers: int) -> Cache:
    """A cache of so many layers; storage is taken as each is first written."""
    return Cache(layers=[FixedLayer(place) for _ in range(layers)])
