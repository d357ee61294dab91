"""The app's handlers: which function handles an event, and how the function is called with what it asks for.

A function is analysed once, where it is registered: its parameters are the event, the parameters of its
pattern, the payload and dependencies. The package knows nothing of a node, which calls the handlers with a
time limit.

- `HubRouter` has the decorators, `HandlerTable` is the table that a node asks, `AppHandler` is one function.
- `Depends` declares a dependency.
"""
