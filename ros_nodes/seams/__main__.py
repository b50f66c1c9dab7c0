from __future__ import annotations

import sys

from ros_nodes.seams.run import main

if __name__ == "__main__":
    sys.exit(main())
