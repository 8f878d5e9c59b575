"""``python -m fmrisynth``."""

from fmrisynth.cli.main import main

if __name__ == "__main__":
    main()
