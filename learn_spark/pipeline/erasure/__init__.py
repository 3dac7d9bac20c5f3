"""Erasure: the rows and mentions of users leave a workspace, with all older versions of the tables that had them."""
