"""Providers over the wire: the only importer of aiohttp's client."""
