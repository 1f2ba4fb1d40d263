"""The client side: with `proxy.server`, the only importer of aiohttp.web."""
