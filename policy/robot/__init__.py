"""A robot, as data: where its observations come from and where its commands go, and how messages become numbers.

Knows no ROS: the policy node, the recorder and the importer of bags read the same file and the same messages.
"""
