"""`python -m ros_nodes.soak`."""

import sys

from ros_nodes.soak.run import main

if __name__ == "__main__":
    sys.exit(main())
