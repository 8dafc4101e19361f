"""What every connector must do, as tests to subclass: needs pytest, and nothing else of ours.

>>> class TestMyStore(ConnectorTests):  # doctest: +SKIP
...     connector = "mystore"
...
...     def put(self, folder, rows): ...
"""

from .suite import ConnectorTests

__all__ = ["ConnectorTests"]
