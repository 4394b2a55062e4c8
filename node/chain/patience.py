"""Waiting that ends, and what is said then."""

from __future__ import annotations

import asyncio


class Patience:
    """`async with`: what takes longer than so many seconds fails with another error."""

    def __init__(self, seconds: float, otherwise: Exception) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._otherwise = otherwise

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: object) -> None:
        try:
            await self._timeout.__aexit__(*raised)  # type: ignore[arg-type]
        except TimeoutError:
            raise self._otherwise from None
