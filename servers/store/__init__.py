"""The model store: turns a source, such as a catalog name or a hub id, into a local folder to serve from.

It exists so that serving never has to think about where weights come from. It refuses to deliver pickled weights or
code: a folder from the store holds safetensors, configuration, tokenizers and licences.
"""

from servers.store.manifest import StoredModel
from servers.store.progress import Progress
from servers.store.store import Store

__all__ = ["Progress", "Store", "StoredModel"]
