"""`python -m flashcp_cli` is `flashcp`."""

from flashcp_cli.start import main

if __name__ == "__main__":
    main()
