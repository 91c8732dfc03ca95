"""`python -m leandetr` is the command `leandetr`."""

from leandetr.cli import main

main()
