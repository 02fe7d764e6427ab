"""`python -m pickaxe_services.cli`."""

from pickaxe_services.cli import main

main()
