"""The sub-commands of `python -m pipeline`: the only place of the room with argparse."""
