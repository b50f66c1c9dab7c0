"""Recordings of others as demonstrations: LeRobot datasets, robomimic's HDF5, rosbags."""

from importlib.util import find_spec

for library in ("PIL", "av", "h5py", "pyarrow", "rosbags"):
    if find_spec(library) is None:
        raise ModuleNotFoundError(
            "importing recordings needs: pip install 'pcm_policy[import]'", name=library
        )
