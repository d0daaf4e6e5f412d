"""Attachments of the CSI volumes that the pods of a node use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kubesim.controllers.base import Controller, Key
from kubesim.controllers.nodes import is_out_of_service
from kubesim.registry import FINISHED
from kubesim.resources import CLAIMS, NODES, PODS, VOLUME_ATTACHMENTS, VOLUMES, Obj
from kubesim.store import Change, node_of

UNMOUNT_SECONDS = 360.0
"""Wait before a volume is detached from a node whose kubelet did not report it as unmounted, as in
kube-controller-manager. With the out-of-service taint there is no wait."""


class AttachDetachController(Controller):
    """Attaches the volumes of the pods on a node, and detaches them when the pods are gone."""

    name = "attach-detach"

    def on_change(self, change: Change) -> None:
        if change.resource is NODES and is_out_of_service(change.new):
            for attachment in self._attached(change.new["metadata"]["name"]):
                self._enqueue_end(attachment, 0.0)
        elif change.resource is PODS and node_of(change.new) and _claims(change.new):
            self._on_pod(change)

    def _on_pod(self, change: Change) -> None:
        node = node_of(change.new)
        if change.kind != "DELETED":
            self.enqueue((node,))
            return
        unmounted = change.new["status"].get("phase") != "Running"
        found = self.store.get(NODES, "", node)
        at_once = unmounted or (found is not None and is_out_of_service(found))
        for volume in self._volumes(change.new):
            key = (node, _name(volume, node))
            self.enqueue(key, None if at_once else UNMOUNT_SECONDS)

    def sync(self, key: Key) -> None:
        used = {
            _name(volume, key[0]): volume
            for pod in self.store.pods_on(key[0])
            if pod["status"].get("phase") not in FINISHED
            for volume in self._volumes(pod)
        }
        if len(key) == 1:
            for name, volume in used.items():
                self._attach(name, volume, key[0])
        elif key[1] not in used and self.store.get(VOLUME_ATTACHMENTS, "", key[1]) is not None:
            self.registry.delete(VOLUME_ATTACHMENTS, "", key[1])

    def _attach(self, name: str, volume: Obj, node: str) -> None:
        if self.store.get(VOLUME_ATTACHMENTS, "", name) is not None:
            return
        spec = {
            "attacher": volume["spec"]["csi"]["driver"],
            "source": {"persistentVolumeName": volume["metadata"]["name"]},
            "nodeName": node,
        }
        body = {"metadata": {"name": name}, "spec": spec}
        made = self.registry.create(VOLUME_ATTACHMENTS, "", body)
        self.registry.set_status(VOLUME_ATTACHMENTS, made, {"attached": True})

    def _attached(self, node: str) -> list[Obj]:
        found = self.store.objects(VOLUME_ATTACHMENTS)
        return [attachment for attachment in found if attachment["spec"]["nodeName"] == node]

    def _enqueue_end(self, attachment: Obj, delay: float) -> None:
        self.enqueue((attachment["spec"]["nodeName"], attachment["metadata"]["name"]), delay)

    def _volumes(self, pod: Obj) -> Iterator[Obj]:
        """The CSI volumes that a pod's claims are bound to."""
        for name in _claims(pod):
            claim = self.store.get(CLAIMS, pod["metadata"]["namespace"], name)
            bound = claim and self.store.get(VOLUMES, "", claim["spec"].get("volumeName", ""))
            if bound and bound["spec"].get("csi"):
                yield bound


def _claims(pod: Obj) -> list[str]:
    volumes = pod["spec"].get("volumes") or ()
    return [
        v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
    ]


def _name(volume: Obj, node: str) -> str:
    """The attachment's name, as kube-controller-manager derives it."""
    csi = volume["spec"]["csi"]
    digest = hashlib.sha256(f"{csi['volumeHandle']}{csi['driver']}{node}".encode())
    return f"csi-{digest.hexdigest()}"
