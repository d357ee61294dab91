"""Revoke users, some of whose connections are on each node."""

from __future__ import annotations

import asyncio
import time

from loadtests.chaos.stage import Stage

ATTEMPTS = 20
RETRY_S = 0.5


async def revoke(stage: Stage, node: int | None = None) -> str:
    """Revoke a user by the API of a node, as a backend does: again until the hub says that it is done.

    Args:
        node: index of the node that is asked; None draws one.
    """
    users = [user for user, exiles in stage.exiles.items() if not exiles[0].is_banished]
    users = [user for user in users if all(exile.token for exile in stage.exiles[user])]
    if not users:
        return "nobody is left to revoke"
    user = stage.chance.choice(users)
    node = stage.chance.randrange(len(stage.cluster.nodes)) if node is None else node
    for exile in stage.exiles[user]:
        exile.is_banished = True
    if stage.chance.random() < 0.3:
        # A user whose connection is broken at that moment holds a reconnect token, too.
        stage.exiles[user][0].drop_link()
    for attempt in range(1, ATTEMPTS + 1):
        reply = await stage.api(node, "disconnect", user=user, revoke=True)
        if "result" in reply:
            for exile in stage.exiles[user]:
                exile.revoked_at = time.monotonic()
            if reply["result"].get("confirmed") is False:
                stage.unconfirmed.append(user)
            return f"user {user} revoked through node {node + 1}, attempt {attempt}: {reply['result']}"
        await asyncio.sleep(RETRY_S)
    stage.fail(f"user {user} could not be revoked: {reply}")
    return f"user {user} not revoked"
