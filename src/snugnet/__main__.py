"""``python -m snugnet``: the same as the command ``snugnet``."""

from snugnet.cli.main import main

if __name__ == "__main__":
    main()
