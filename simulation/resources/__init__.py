"""Days of the two custom resources: CloudFormation's requests, faults, and edits of others.

`onboarding.story` and `agent.story` live the shipped code of `lambdas/onboarding` and
`lambdas/agent` in virtual time on moto's account, a fake of EKS, simulated clusters and the
simulated CAST AI.
"""
