"""The version of this package, in the one place that every floor may read.

It is a literal, so that a vendored copy needs no package metadata. It imports nothing.
"""

VERSION = "0.1.0"
