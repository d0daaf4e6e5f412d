"""Names that more than one package uses: objects in the cluster, tags, metrics, environment."""

from __future__ import annotations

from typing import Final

AGENT: Final = "castai-agent"
"""Namespace of the agent, its Deployment and most of its objects."""
AGENT_METADATA: Final = "castai-agent-metadata"
"""ConfigMap of that namespace with the CAST AI cluster id that the agent uses."""
AGENT_CLUSTER_ID: Final = "CLUSTER_ID"
"""Key of that ConfigMap."""

SPOT_HANDLER: Final = "castai-spot-handler"
"""ClusterRole, ClusterRoleBinding and FlowSchema of the spot handler."""
SPOT_HANDLER_GROUP: Final = "castai:spot-handler"
"""Kubernetes group of the spot handler's role: the binding's subject."""
SPOT_ROLE: Final = "CastLambdaRoleForSpot"
"""Default name of the spot handler's role."""

CLUSTER_ID_TAG: Final = "cast:cluster-id"
"""CAST AI's own tag: its id of the cluster, on what belongs to the cluster."""

# Tags of AWS resources that this project makes.
CLUSTER_TAG: Final = "castai-eks:cluster"
"""ARN of the EKS cluster that the resource is for. Nothing without this tag is ever deleted."""
OWNER_TAG: Final = "castai-eks:owner"
"""Which custom resource made it: `<stack>/<logical id>`."""
FORMER_IDS_TAG: Final = "castai-eks:former-ids"
"""On the node role: CAST AI's former ids of the cluster, until no resource has a former id."""
SHARED_AS_TAG: Final = "castai-eks:shared-as"
"""On the account-wide policy: the properties that its document follows."""
ROTATION_TAG: Final = "castai-eks:rotation"
"""On the credentials' secret: the property Rotation that its key belongs to."""
TEMPORARY_TAG: Final = "castai-eks:temporary"
"""On an access entry that exists only while this project works in the cluster."""

# Annotations of Kubernetes objects that this project makes or changes.
OWNER_ANNOTATION: Final = "castai-eks/owner"
"""Which custom resource made the object: `<stack>/<logical id>`."""
KEY_ANNOTATION: Final = "castai-eks/api-key"
"""On the agent's pods: a fingerprint of the API key, so that a new key restarts them."""
MARKS_ANNOTATION: Final = "castai-eks/marks"
"""On the node of an instance that may return: what the cordon added, so that only that is
removed."""

CLUSTER_ADMIN: Final = "AmazonEKSClusterAdminPolicy"
"""EKS access policy for writing RBAC objects, which takes every right that they grant."""
VIEW: Final = "AmazonEKSViewPolicy"
"""EKS access policy for reading Deployments, ReplicaSets and pods of a namespace; no Secret."""

METRICS_NAMESPACE: Final = "CastAI/SpotHandler"
METRICS_SERVICE: Final = "spot-handler"
"""Value of the metrics' dimension `service`."""

OWN_ROLE_VARIABLE: Final = "OWN_ROLE_ARN"
"""Environment variable of both custom resources' functions: the ARN of the function's role."""
STACK_ID_VARIABLE: Final = "STACK_ID"
"""Environment variable of both custom resources' functions: the id of the function's stack."""

CLUSTER_NAME_PATTERN: Final = r"^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$"
"""EKS API reference, CreateCluster, parameter `name`."""

INSTANCE_ID_PATTERN: Final = r"i-[0-9a-f]{8,17}"
"""Id of an EC2 instance."""
