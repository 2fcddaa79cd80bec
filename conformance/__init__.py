"""The measure: upstream's own acceptance tests, run against a Pileus as it is shipped.

Standard library only: the tests live in an environment of their own, and talk to the cloud as any client does.
"""
