"""Try the project on an AWS account and an EKS cluster of the user, and undo everything.

It runs the chapters of the demo with stacks under a name prefix of their own: deployment, drill on
one instance, comparison of account, cluster and node with before. Nothing here knows the sandbox's
account: the tests run the same code in the sandbox.
"""
