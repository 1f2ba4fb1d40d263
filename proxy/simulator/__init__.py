"""A scripted provider on a real loopback socket, for the demo, tests and benchmarks. Nothing in it reaches a model.

`server.Simulator` starts it. A request's life: `reader` cuts it out of the bytes, `endpoints` finds who answers its
path, `intake` takes its body as it comes (and `form` reads a multipart one), `ask` understands it, `scripts` chooses a
behaviour by the model's name, `answers` and `delivery` write it as steps, and `connection` plays the steps on the socket.
"""
