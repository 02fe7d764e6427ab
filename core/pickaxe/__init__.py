"""pickaxe."""
