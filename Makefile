PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(shell find proto -name '*.proto')

proto: $(VENV)/installed  ## generate serving/pb from proto/
	$(BIN)/python -m grpc_tools.protoc -Iserving/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
		-I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
		$(PROTOS:proto/%=serving/pb/%)
