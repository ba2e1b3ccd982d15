"""What ``cluster.yaml`` needs of an AWS account, made once: ``python jobs/aws/set_up.py BUCKET [--region R]``.

Makes, or finds, a security group that lets in nobody but you (SSH) and the nodes themselves, and two instance profiles:
of the head, which may start and end nodes, and of the workers, which may not; both may read and write the bucket.
Prints what to put into the lines of ``cluster.yaml`` that are marked CHANGE. Nothing that it makes costs anything.

Needs ``pip install boto3`` and credentials that may make these things. Run it again when your address changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import urllib.request
from typing import Any

NAME = "raydom"
MY_ADDRESS = "https://checkip.amazonaws.com"
IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
"""The parameter that names the Ubuntu image with Docker and the NVIDIA driver in a region."""
STARTS_NODES = [
    "ec2:Describe*", "ec2:RunInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances",
    "ec2:CreateTags", "ec2:DeleteTags",
]  # fmt: skip
"""What Ray's autoscaler does on the head."""
TRUST = [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]


def main(argv: list[str] | None = None) -> int:
    """Make what is missing and print it."""
    import boto3

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bucket", help="the bucket of your collections and results")
    parser.add_argument("--region", default="us-west-2", help="that of the bucket; also in cluster.yaml")
    parser.add_argument("--address", help="who may reach the nodes by SSH, as 1.2.3.4/32; by default this machine")
    options = parser.parse_args(argv)
    session = boto3.Session(region_name=options.region)
    address = options.address or my_address()
    group = security_group(session.client("ec2"), address)
    for node in ("head", "worker"):
        instance_profile(session.client("iam"), f"{NAME}-{node}", options.bucket)
    allow_spot(session.client("iam"))
    print(f"{NAME}: SSH from {address} alone; {options.bucket} for all nodes. In cluster.yaml:")
    print(f"  region: {options.region}")
    print(f"  SecurityGroupIds: [{group}]")
    print(f"  ImageId: {image(session.client('ssm')) or 'look for one with Docker and the NVIDIA driver'}")
    return 0


def my_address() -> str:
    """The address that this machine has on the internet."""
    with urllib.request.urlopen(MY_ADDRESS, timeout=30) as answer:
        return f"{answer.read().decode().strip()}/32"


def security_group(ec2: Any, address: str) -> str:
    """The id of the group; SSH is open to this address and to no other."""
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    wanted = [{"Name": "group-name", "Values": [NAME]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    if not found:
        ec2.create_security_group(GroupName=NAME, Description="raydom: SSH from me, and the nodes", VpcId=vpc)
        found = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    group = found[0]["GroupId"]
    if found[0]["IpPermissions"]:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=found[0]["IpPermissions"])
    rules = [
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": address}]},
    ]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    return str(group)


def instance_profile(iam: Any, name: str, bucket: str) -> None:
    """A role for nodes of a kind, and the profile by which they have it."""
    if name not in {role["RoleName"] for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]}:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(TRUST))
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    data = [
        {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": f"arn:aws:s3:::{bucket}"},
        {"Effect": "Allow", "Action": objects, "Resource": f"arn:aws:s3:::{bucket}/*"},
    ]
    iam.put_role_policy(RoleName=name, PolicyName="data", PolicyDocument=policy(data))
    if name == f"{NAME}-head":
        start = [
            {"Effect": "Allow", "Action": STARTS_NODES, "Resource": "*"},
            {"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"arn:aws:iam::*:role/{NAME}-worker"},
        ]
        iam.put_role_policy(RoleName=name, PolicyName="start-workers", PolicyDocument=policy(start))
    pages = iam.get_paginator("list_instance_profiles").paginate()
    if name not in {profile["InstanceProfileName"] for page in pages for profile in page["InstanceProfiles"]}:
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def allow_spot(iam: Any) -> None:
    """The role by which AWS takes spot nodes back; each account has it after its first one."""
    with contextlib.suppress(iam.exceptions.InvalidInputException, iam.exceptions.EntityAlreadyExistsException):
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")


def policy(statements: list[dict[str, Any]]) -> str:
    """Statements as a policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def image(ssm: Any) -> str | None:
    """The id of the nodes' image in this region."""
    try:
        return str(ssm.get_parameter(Name=IMAGE)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


if __name__ == "__main__":
    sys.exit(main())
