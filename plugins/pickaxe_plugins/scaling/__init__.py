"""Methods that predict what a training run will bring: mixtures, budgets, deployments."""
