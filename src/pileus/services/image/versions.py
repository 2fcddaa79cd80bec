"""The ledger of the Image API: its minor versions are told by discovery alone and change no shape.

Source: Image API reference, "Image Service Versions".
"""

from __future__ import annotations

HISTORY = {
    "2.18": "the cache is cleaned and pruned by `POST /v2/cache/clean` and `…/prune`",
    "2.17": "the place of an image's data may be told and asked under `locations`",
    "2.16": "the store that data is read from may be wished for, and the cache works on copies",
    "2.15": "quota usage under `/v2/info/usage`",
    "2.14": "the cache, under `/v2/cache`",
    "2.13": "stores in detail under `/v2/info/stores/detail`",
    "2.12": "policies belong to projects",
    "2.11": "an image that exists may be copied to further stores",
    "2.10": "import into several stores",
    "2.9": "`os_hash_algo` and `os_hash_value`",
    "2.8": "several stores, under `/v2/info/stores`",
    "2.7": "`os_hidden`",
    "2.6": "import",
    "2.5": "visibility `community`",
    "2.4": "a location may be given when there is no data",
    "2.3": "deactivate and reactivate",
    "2.2": "custom properties may be protected",
    "2.1": "JSON patch after its tenth draft",
    "2.0": "the beginning",
}
"""Each version that is supported, newest first, with what it brought."""

CACHE = frozenset({"2.14", "2.16", "2.18"})
"""Those that are told only where there is a cache."""
