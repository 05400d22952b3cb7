"""`python -m streams`: the command `afterglow`, wherever its script is."""

from streams.commands import main

main()
