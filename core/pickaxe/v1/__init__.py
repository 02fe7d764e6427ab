"""Generated from protos/pickaxe/v1: messages and stubs of the package `pickaxe.v1`.

To generate anew, with grpcio-tools 1.76.0:
`python -m grpc_tools.protoc -I protos --python_out=core --pyi_out=core --grpc_python_out=core
protos/pickaxe/v1/*.proto`
"""
