"""`python -m cortexgen`."""

from cortexgen.cli import main

if __name__ == "__main__":
    main()
