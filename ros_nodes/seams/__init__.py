"""What joint_trajectory_controller makes of one chunk after the other: velocity jumps where one replaces another."""
