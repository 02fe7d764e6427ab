"""Methods that adapt a model to a task."""
