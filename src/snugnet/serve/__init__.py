"""The service: a trained family behind HTTP. A thin layer; what it hands out, the family makes."""

from snugnet.extras import needs

needs("fastapi", "uvicorn", "python_multipart", "prometheus_client", "filelock", "PIL", "onnxruntime")
