"""The Kubernetes manifests: what the API server, and KubeRay's operator beyond its definitions, would refuse.

Not shown here: that an operator makes a cluster of them. None of them has been applied to one by these tests.
"""

import copy
import re
import shutil

import pytest
import yaml

from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS
from tests.cluster import crds
from tests.cluster.manifests import BIN, CLUSTER, load, pinned, run

KUBERAY = "1.7.0"
"""The version whose definitions and rules the tests know."""

OVERLAYS = ["eks-karpenter", "gke-spot", "kind"]
KUSTOMIZE = ("kubectl", "kustomize") if shutil.which("kubectl") else ("kustomize", "build")
GRACE_S = 20
"""By how much a pod's end is later than that of Ray's drain in it, at least."""

CORE = ["k8s/base/networkpolicy.yaml", "k8s/base/poddisruptionbudget.yaml"]
ALPHA = {"networkPolicy", "tlsOptions", "historyServerOptions"}
"""Fields that KubeRay 1.7 refuses unless a feature gate is on, which none is by default."""


@pytest.fixture(scope="module")
def definitions():
    if crds.folder() is None:
        pytest.skip(f"RAYFEED_CRDS does not name the folder with KubeRay {KUBERAY}'s custom resource definitions")
    return crds.validators(crds.folder())


def job():
    return load("k8s/base/rayjob.yaml")


def rendered(overlay):
    """The resources of an overlay by their kinds, as kustomize renders them; nothing leaves this machine."""
    if not shutil.which(KUSTOMIZE[0]):
        pytest.skip("neither kubectl nor kustomize is installed, which render overlays")
    status, output = run(*KUSTOMIZE, CLUSTER / "k8s" / "overlays" / overlay)
    assert status == 0, output
    return {resource["kind"]: resource for resource in yaml.safe_load_all(output)}


def groups(cluster):
    """The head's group and the workers', by their names."""
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def pod(group):
    return group["template"]["spec"]


def drain_s(container):
    (value,) = [one["value"] for one in container["env"] if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
    return int(value)


def check_operator_rules(cluster):
    """What KubeRay 1.7.0's operator refuses, or what goes wrong silently, though its definitions allow it."""
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}, "the operator wants rayVersion of 2.52 at least, which is set"
    assert not ALPHA & set(cluster)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2", "idleTimeoutSeconds and priority of a group need it"
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert len(set(names)) == len(names)
    for name, group in groups(cluster).items():
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), "a DNS-1035 label"
        assert pod(group).get("restartPolicy", "Never") == "Never", "autoscaler v2 restarts no pod"
        assert "labels" not in group["rayStartParams"], "the group's own labels are meant"
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        if name != "head":
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def check_security(cluster):
    tight = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert cluster["autoscalerOptions"]["securityContext"] == tight
    for name, group in groups(cluster).items():
        spec = pod(group)
        assert group["template"]["metadata"]["labels"] == {"app.kubernetes.io/part-of": "rayfeed"}, "the policy's"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (name == "head"), "the autoscaler alone speaks to Kubernetes"
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(spec)
        (container,) = spec["containers"]
        assert container["securityContext"] == tight
        assert not any("hostPort" in port for port in container["ports"])


def check_resources(cluster):
    for group in groups(cluster).values():
        (container,) = pod(group)["containers"]
        asked, limit = container["resources"]["requests"], container["resources"]["limits"]
        assert asked["memory"] == limit["memory"], "the object store is memory of the pod"
        period = {"name": "RAY_free_objects_period_milliseconds", "value": str(FREE_OBJECTS_PERIOD_MS)}
        assert period in container["env"]
        assert pod(group)["terminationGracePeriodSeconds"] >= drain_s(container) + GRACE_S
    assert groups(cluster)["head"]["rayStartParams"] == {"num-cpus": "0"}
    for role in ("trainer", "producer"):
        (group,) = [group for group in cluster["workerGroupSpecs"] if group["labels"]["rayfeed.io/role"] == role]
        limits = pod(group)["containers"][0]["resources"]["limits"]
        assert ("cpu" in limits) == (role == "producer"), "a limit of CPU stalls the trainer's input"


def test_the_cluster_alone_is_the_jobs_cluster():
    assert load("k8s/base/raycluster.yaml")["spec"] == job()["spec"]["rayClusterSpec"]


def test_the_operator_would_take_the_cluster():
    check_operator_rules(job()["spec"]["rayClusterSpec"])


def test_no_pod_has_more_rights_than_it_needs():
    check_security(job()["spec"]["rayClusterSpec"])


def test_pods_get_the_memory_and_the_time_to_end_that_ray_counts_on():
    check_resources(job()["spec"]["rayClusterSpec"])


def test_the_job_runs_the_example_once_more_when_its_head_is_lost_and_leaves_no_cluster():
    spec = job()["spec"]
    assert spec["entrypoint"].startswith("python /home/ray/examples/digits.py ")
    assert spec["submissionMode"] == "HTTPMode", "submits from no pod, and not before the trainer's GPU is there"
    assert {
        group["replicas"] for group in cluster_of(job())["workerGroupSpecs"] if "trainer" in str(group["labels"])
    } == {1}
    assert spec["shutdownAfterJobFinishes"] is True, "ttlSecondsAfterFinished needs it"
    assert spec["backoffLimit"] == 1
    assert spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]


def test_images_are_of_the_ray_that_is_tested_and_can_come_from_nowhere_by_accident():
    images = {name: pod(group)["containers"][0]["image"] for name, group in groups(cluster_of(job())).items()}
    version = pinned("ray")
    assert images == {
        "head": f"registry.invalid/rayfeed:{version}-cpu",
        "trainer": f"registry.invalid/rayfeed:{version}-gpu",
        "producers": f"registry.invalid/rayfeed:{version}-cpu",
    }


def cluster_of(resource):
    return resource["spec"]["rayClusterSpec"]


def test_only_the_clusters_pods_the_operator_and_prometheus_get_in():
    policy = load("k8s/base/networkpolicy.yaml")["spec"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "rayfeed"}}
    assert policy["policyTypes"] == ["Ingress"]
    own, operator, prometheus = policy["ingress"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert operator["from"][0]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    assert [port["port"] for port in prometheus["ports"]] == [8080, 44217, 44227]
    assert all(rule["from"] for rule in policy["ingress"]), "an empty rule lets everybody in"


def check_budget(budget, cluster):
    """Of pods whose owner has no scale subresource Kubernetes takes a count that stays, and nothing else."""
    assert set(budget) == {"minAvailable", "selector"}
    assert budget["selector"]["matchLabels"] == {"app.kubernetes.io/part-of": "rayfeed"}
    (rule,) = budget["selector"]["matchExpressions"]
    assert rule == {"key": "ray.io/group", "operator": "NotIn", "values": ["producers"]}
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert "producers" in names
    staying = [group for group in cluster["workerGroupSpecs"] if group["groupName"] != "producers"]
    assert all(group["minReplicas"] == group["replicas"] == group["maxReplicas"] for group in staying)
    assert budget["minAvailable"] == 1 + sum(group["replicas"] for group in staying), "the head and these"


def test_the_budget_counts_head_and_trainer_and_lets_producers_go():
    check_budget(load("k8s/base/poddisruptionbudget.yaml")["spec"], cluster_of(job()))


def test_kuberays_kinds_have_no_scale_of_which_a_budget_could_take_a_share(definitions):
    """Why the budget counts; the day this fails it may say maxUnavailable."""
    assert definitions
    assert crds.with_scale(crds.folder()) == []


def cpus(group):
    return int(pod(group)["containers"][0]["resources"]["requests"]["cpu"])


def check_workers(resource):
    """The job asks for producers that the trainer's pod cannot hold, and its producers' pods can."""
    (workers,) = re.findall(r" --workers (\d+) ", resource["spec"]["entrypoint"])
    there = groups(cluster_of(resource))
    assert cpus(there["trainer"]) < int(workers), "none would need a pod of its own"
    assert int(workers) <= there["producers"]["maxReplicas"] * cpus(there["producers"])


def test_the_job_has_producers_for_which_pods_must_come():
    check_workers(job())


def test_the_readme_says_when_a_job_ends_by_itself_and_how_it_is_run_again():
    text = (CLUSTER / "README.md").read_text()
    spec = job()["spec"]
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds", "backoffLimit"):
        assert f"`{field}: {spec[field]}`" in text
    assert f"ends any training after {spec['activeDeadlineSeconds'] // 3600} hours" in text
    assert f"kubectl delete rayjob {job()['metadata']['name']}" in text
    (workers,) = re.findall(r" --workers (\d+) ", spec["entrypoint"])
    assert f"trains with {workers} producers" in text


def test_one_version_of_kuberay_is_named_everywhere():
    files = [path for path in CLUSTER.rglob("*") if path.suffix in (".md", ".yaml")]
    text = "\n".join(path.read_text() for path in files)
    named = re.findall(r"(?:KubeRay(?:'s operator)?|kuberay-helm --version) v?(\d+\.\d+(?:\.\d+)?)", text)
    assert len(named) >= 4
    assert set(named) == {KUBERAY}


@pytest.mark.parametrize("file", CORE)
def test_kubernetes_takes_its_own_kinds(file):
    status, output = run(BIN / "kubernetes-validate", "--strict", CLUSTER / file)
    assert status == 0, output
    assert "passed for resource" in output


def test_a_misspelt_field_of_kubernetes_own_kinds_is_refused(tmp_path):
    text = (CLUSTER / CORE[0]).read_text()
    broken = tmp_path / "policy.yaml"
    broken.write_text(text.replace("policyTypes", "policyType"))
    assert broken.read_text() != text
    status, output = run(BIN / "kubernetes-validate", "--strict", broken)
    assert status != 0, output
    assert "policyType" in output


@pytest.mark.parametrize("file", ["k8s/base/rayjob.yaml", "k8s/base/raycluster.yaml"])
def test_kuberays_definitions_take_the_file(definitions, file):
    resource = load(file)
    assert crds.errors(definitions[resource["apiVersion"], resource["kind"]], resource) == []


@pytest.mark.parametrize(
    ("breakage", "where"),
    [
        (lambda cluster: cluster.update(enableAutoscaling=True), "enableAutoscaling"),
        (lambda cluster: cluster["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "num-cpus"),
        (lambda cluster: cluster["workerGroupSpecs"][0].pop("groupName"), "groupName"),
        (lambda cluster: pod(cluster["workerGroupSpecs"][0]).update(toleration=[]), "toleration"),
    ],
    ids=["unknown field", "number for string", "no name", "unknown field of a pod"],
)
def test_kuberays_definitions_refuse_a_broken_file(definitions, breakage, where):
    resource = copy.deepcopy(job())
    breakage(cluster_of(resource))
    (error,) = crds.errors(definitions[resource["apiVersion"], resource["kind"]], resource)
    assert where in error


def test_the_base_has_one_cluster_and_every_other_file():
    listed = load("k8s/base/kustomization.yaml")["resources"]
    there = {path.name for path in (CLUSTER / "k8s" / "base").glob("*.yaml")}
    assert set(listed) == there - {"kustomization.yaml", "raycluster.yaml"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_makes_keeps_every_rule_of_the_base(overlay):
    resources = rendered(overlay)
    assert set(resources) == {"RayJob", "NetworkPolicy", "PodDisruptionBudget"}
    cluster = cluster_of(resources["RayJob"])
    check_operator_rules(cluster)
    check_security(cluster)
    check_resources(cluster)
    check_budget(resources["PodDisruptionBudget"]["spec"], cluster)
    check_workers(resources["RayJob"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberays_definitions_take_what_an_overlay_makes(definitions, overlay):
    resource = rendered(overlay)["RayJob"]
    assert crds.errors(definitions[resource["apiVersion"], resource["kind"]], resource) == []


def test_on_eks_and_gke_only_producers_are_on_spot_machines():
    eks = groups(cluster_of(rendered("eks-karpenter")["RayJob"]))
    capacity = {name: pod(group)["nodeSelector"]["karpenter.sh/capacity-type"] for name, group in eks.items()}
    assert capacity == {"head": "on-demand", "trainer": "on-demand", "producers": "spot"}

    gke = groups(cluster_of(rendered("gke-spot")["RayJob"]))
    spot = {name for name, group in gke.items() if "cloud.google.com/gke-spot" in pod(group).get("nodeSelector", {})}
    assert spot == {"producers"}
    assert pod(gke["producers"])["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert drain_s(pod(gke["producers"])["containers"][0]) < 15, "GKE's time for a spot pod"


def test_on_kind_no_pod_asks_for_a_gpu_or_an_image_from_elsewhere():
    kind = groups(cluster_of(rendered("kind")["RayJob"]))
    assert "nvidia.com/gpu" not in str([pod(group)["containers"] for group in kind.values()])
    assert {pod(group)["containers"][0]["image"] for group in kind.values()} == {
        f"localhost/rayfeed:{pinned('ray')}-cpu"
    }


def test_a_patch_of_a_group_that_moved_is_refused(tmp_path):
    """Patches name a group by its place; the test operation beside each says which it must be."""
    if not shutil.which(KUSTOMIZE[0]):
        pytest.skip("neither kubectl nor kustomize is installed, which render overlays")
    shutil.copytree(CLUSTER / "k8s", tmp_path / "k8s")
    base = tmp_path / "k8s" / "base" / "rayjob.yaml"
    base.write_text(base.read_text().replace("groupName: trainer", "groupName: gpu"))
    for overlay in OVERLAYS:
        status, output = run(*KUSTOMIZE, tmp_path / "k8s" / "overlays" / overlay)
        assert status != 0, output
