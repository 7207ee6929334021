"""Denies or allows writing to a topic, to everybody: `acl.py deny|allow BROKERS TOPIC`."""

import sys

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)


def binding(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*", operation, permission)


def main() -> None:
    verb, brokers, topic = sys.argv[1:]
    admin = AdminClient({"bootstrap.servers": brokers})
    # A topic with any rule is closed to all that no rule lets in.
    rules = [binding(topic, AclOperation.ALL, AclPermissionType.ALLOW)]
    refusal = binding(topic, AclOperation.WRITE, AclPermissionType.DENY)
    if verb == "deny":
        rules.append(refusal)
    for made in admin.create_acls(rules).values():
        made.result()
    if verb == "allow":
        gone = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*", AclOperation.WRITE, AclPermissionType.DENY
        )
        for deleted in admin.delete_acls([gone]).values():
            deleted.result()


if __name__ == "__main__":
    main()
