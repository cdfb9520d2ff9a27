"""The gRPC edge: reads requests, calls one use case, writes the response; turns errors into statuses; guards methods.

It imports server.accounts, grpc and its packages (status, health, reflection, google.rpc), protobuf, cryptography (for
page tokens) and the generated messages; nothing else of ours.
"""
