"""The network form of what processes say to each other: errors, values, frames, and the data node's calls.

Nothing that an embedded database imports may import this package.
"""
