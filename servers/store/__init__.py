"""The model store: turns a source, such as a catalog name or a hub id, into a local folder to serve from.

A folder of the store holds safetensors, configuration, tokenizers and licences; no pickled weights and no code.
"""

from servers.store.manifest import StoredModel
from servers.store.progress import Progress
from servers.store.store import Store

__all__ = ["Progress", "Store", "StoredModel"]
