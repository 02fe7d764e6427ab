"""GOT-D: items that pull a pool's distribution towards a target, by the gradient of optimal transport (2405.02774)."""

from pickaxe_plugins.selection.got_d._method import GotD
from pickaxe_plugins.selection.got_d._pool import concatenated_units

__all__ = ["GotD", "concatenated_units"]
