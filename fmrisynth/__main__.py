"""``python -m fmrisynth``."""

from fmrisynth.cli import main

if __name__ == "__main__":
    main()
