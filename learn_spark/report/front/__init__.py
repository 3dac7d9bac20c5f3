"""The parts of a workspace's front page that a page of one run does not have."""
