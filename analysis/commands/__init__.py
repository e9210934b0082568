"""The commands of `python -m analysis`: each module adds its parser (`register`) and does its work (`run`)."""
