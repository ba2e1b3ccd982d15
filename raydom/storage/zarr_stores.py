"""Where Zarr keeps its chunks and shards: a local folder, or an object store that is asked again when it is busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from raydom.storage import files, stores


def open_store(uri: str, *, read_only: bool = False) -> Store:
    """The Zarr store at a local path or URL."""
    if not files.is_url(uri):
        return LocalStore(uri, read_only=read_only)
    store = SteadyStore.from_url(uri, storage_options=stores.options_of(uri), read_only=read_only)
    stores.opened(store.fs)
    return store


class SteadyStore(FsspecStore):
    """Any fsspec file system; requests that fail for a moment are made again, as those of ``files`` are."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return await self._asked(key, lambda: super(SteadyStore, self).get(key, prototype, byte_range))

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        await self._asked(key, lambda: super(SteadyStore, self).set(key, value, byte_range))

    async def delete(self, key: str) -> None:
        await self._asked(key, lambda: super(SteadyStore, self).delete(key))

    async def exists(self, key: str) -> bool:
        return bool(await self._asked(key, lambda: super(SteadyStore, self).exists(key)))

    async def _asked(self, key: str, call: Callable[[], Any]) -> Any:
        return await stores.steadily(call, files.join(self.fs.unstrip_protocol(self.path), key))


class ReplacingStore(WrapperStore[Store]):
    """A store for writing whole shards: Zarr, which reads a shard before it writes it, is told that there is none."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return None
