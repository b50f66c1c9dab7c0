"""ROS 2 nodes around the policy and the PushT simulator. The only package that knows ROS."""
