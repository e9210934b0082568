"""To be preloaded by a fork server: its forks stay what they were for a moment, so that a signal can come in between."""

import os
import time

os.register_at_fork(after_in_child=lambda: time.sleep(0.5))
