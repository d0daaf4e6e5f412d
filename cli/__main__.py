"""`python -m cli` is `castai-eks`."""

from cli.main import main

main()
