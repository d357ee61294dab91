"""The decisions of the hub, as pure state machines: messages and a time in, effects out.

This package is not a server: it has no sockets, tasks, event loop or clock, and it never calls a broker. The
node (`hub.node`) uses it, and carries the effects out. Its two main types are `session.session.Session`, the
protocol with one client, and `channel.follower.StreamFollower`, the stream of one channel on one node.
"""
