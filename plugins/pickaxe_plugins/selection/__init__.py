"""Methods that pick training data: which texts of a pool are worth keeping, and which a model has seen before."""
